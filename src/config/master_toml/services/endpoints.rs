//! `also_listen`: endpoints beside the service's own, and to which users their sockets belong.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Mistake, ServiceTable, Setting, System, Value};
use crate::config::inet::NOT_HERE;
use crate::config::master_cf::{Location, SOCKET_PATH_MAX, locate_inet};
use crate::config::{
    AlsoListen, Diagnostic, Diagnostics, Endpoint, Kind, ListenAddress, Place, Service,
};
use crate::protocol::LISTENERS_MAX;

/// The maximum number of endpoints of a service beside its own.
const ENDPOINTS_MAX: usize = 64;

/// What the socket of a template takes of the descriptors for listeners.
const TEMPLATE: usize = 1;

const EXPECTED: &str = "\"port\", \"host:port\", \"[address]:port\", \"unix:/PATH\", \
                        \"unix:private/NAME\" or \"unix:public/NAME\"";

/// Stores a value, or tells what was expected instead.
type Set = fn(&mut Draft, &Setting, System<'_>) -> Result<(), Mistake>;

const KEYS: [(&str, Set); 4] = [
    ("also_listen", endpoints),
    ("socket_mode", mode),
    ("socket_user", user),
    ("socket_group", group),
];

/// The settings as far as they are read.
#[derive(Debug, Default)]
pub(super) struct Draft {
    listen: AlsoListen,
    places: Vec<Place>,
    /// Addresses that this machine does not have.
    warnings: Vec<(Place, String)>,
}

/// The endpoints of one service, and where they are written.
#[derive(Debug)]
pub(super) struct Written {
    kind: Kind,
    canonical: String,
    places: Vec<Place>,
}

/// The result of a table.
pub(super) struct Finished {
    pub(super) listen: AlsoListen,
    pub(super) written: Option<Written>,
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KEYS.iter().map(|(name, _)| *name)
}

pub(super) fn find(key: &str) -> Option<Set> {
    let (_, set) = KEYS.iter().find(|(name, _)| *name == key)?;
    Some(*set)
}

fn endpoints(draft: &mut Draft, setting: &Setting, system: System<'_>) -> Result<(), Mistake> {
    let Value::List(items) = &setting.value else {
        return Err("a list, as in [\"[::1]:783\", \"unix:/run/spamd.sock\"]".into());
    };
    if items.len() > ENDPOINTS_MAX {
        return Err(format!("at most {ENDPOINTS_MAX} endpoints").into());
    }
    for (item, place) in items {
        let found = endpoint(draft, item, place, system);
        let endpoint = found.map_err(|expected| Mistake {
            place: Some(place.clone()),
            expected: expected.into(),
        })?;
        draft.listen.endpoints.push(endpoint);
        draft.places.push(place.clone());
    }
    Ok(())
}

fn endpoint(
    draft: &mut Draft,
    item: &Value,
    place: &Place,
    system: System<'_>,
) -> Result<Endpoint, String> {
    let Value::Text(text) = item else {
        return Err(EXPECTED.to_owned());
    };
    if let Some(path) = text.strip_prefix("unix:") {
        return path_of_socket(path, system).map(Endpoint::Path);
    }
    let located = locate_inet(text, system.network, system.resolver);
    let Location {
        endpoint, missing, ..
    } = located.map_err(|problem| format!("{EXPECTED}; {problem}"))?;
    for address in missing {
        let warning = format!("not listening on {address}: {NOT_HERE}");
        draft.warnings.push((place.clone(), warning));
    }
    Ok(endpoint)
}

/// An absolute path, whose directory only root may change: nothing else could then be put in the way of
/// the master, which makes the socket with root's rights. Or a path as that of a service.
fn path_of_socket(text: &str, system: System<'_>) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    let below = text.strip_prefix('/');
    let class = || {
        ["private/", "public/"]
            .iter()
            .find(|class| text.starts_with(**class))
    };
    let parts = below.unwrap_or(text);
    let bad_part = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if below.is_none() && class().is_none() || parts.split('/').any(bad_part) {
        return Err(format!(
            "{EXPECTED}; a path has no empty parts, \".\" or \"..\""
        ));
    }
    if text.len() > SOCKET_PATH_MAX {
        let length = text.len();
        return Err(format!(
            "a path of at most {SOCKET_PATH_MAX} bytes, and this has {length}"
        ));
    }
    let directory = path.parent().filter(|_| below.is_some());
    if let Some(directory) = directory.filter(|_| !system.is_without_root()) {
        system.resolver.check_trust(directory).map_err(|problem| {
            format!("a path that only root can change, because root makes the socket: {problem}")
        })?;
    }
    Ok(path)
}

fn mode(draft: &mut Draft, setting: &Setting, _: System<'_>) -> Result<(), Mistake> {
    let mode = match &setting.value {
        Value::Text(text) if text.bytes().all(|b| matches!(b, b'0'..=b'7')) => {
            u32::from_str_radix(text, 8).ok()
        }
        _ => None,
    };
    let mode = mode.filter(|mode| *mode <= 0o777);
    draft.listen.rights.mode =
        mode.ok_or("an octal number from \"0000\" to \"0777\", as a string")?;
    Ok(())
}

fn user(draft: &mut Draft, setting: &Setting, system: System<'_>) -> Result<(), Mistake> {
    let resolver = system.resolver;
    let found = match &setting.value {
        Value::Text(name) => resolver.user(name),
        Value::Integer(uid) => {
            let name = u32::try_from(*uid).ok().and_then(|u| resolver.user_name(u));
            name.and_then(|name| resolver.user(&name))
        }
        _ => None,
    };
    let user = found.ok_or("the name or number of a user of this system")?;
    let rights = &mut draft.listen.rights;
    rights.uid = Some(user.uid);
    rights.gid = rights.gid.or(Some(user.gid));
    Ok(())
}

fn group(draft: &mut Draft, setting: &Setting, system: System<'_>) -> Result<(), Mistake> {
    let gid = super::sandbox::gid(&setting.value, system);
    draft.listen.rights.gid = Some(gid.ok_or("the name or number of a group of this system")?);
    Ok(())
}

impl Draft {
    /// What of this the service has. What does not fit to it is found.
    pub(super) fn finish(
        self,
        table: &ServiceTable,
        service: &Service,
        findings: &mut Diagnostics,
    ) -> Finished {
        for (place, warning) in self.warnings {
            findings.push(Diagnostic::warning(place, warning));
        }
        if let Some((key, message)) = misfit(table, service, &self.listen) {
            findings.push(Diagnostic::error(table.place_of(key), message));
        }
        let written = Written {
            kind: service.kind,
            canonical: service.canonical.clone(),
            places: self.places,
        };
        Finished {
            written: (!written.places.is_empty()).then_some(written),
            listen: self.listen,
        }
    }
}

/// A setting that does not fit to the service or the others.
fn misfit(
    table: &ServiceTable,
    service: &Service,
    listen: &AlsoListen,
) -> Option<(&'static str, String)> {
    let is_path = |endpoint: &Endpoint| matches!(endpoint, Endpoint::Path(_));
    if !listen.endpoints.iter().any(is_path) {
        let rights = names().filter(|name| name.starts_with("socket_"));
        let alone = { rights }.find(|name| table.settings.iter().any(|set| set.key == *name));
        if let Some(key) = alone {
            let message = format!("\"{key}\" needs a \"unix:\" path in \"also_listen\" beside it");
            return Some((key, message));
        }
    }
    if listen.endpoints.is_empty() {
        return None;
    }
    if !matches!(service.kind, Kind::Inet | Kind::Unix) {
        let message = format!(
            "\"also_listen\" is for services of type inet and unix, and this is {}",
            service.kind
        );
        return Some(("also_listen", message));
    }
    let own = service.endpoint.listen_addresses().count();
    let others = listen.endpoints.iter().flat_map(Endpoint::listen_addresses);
    let (all, most) = (own + others.count(), LISTENERS_MAX - TEMPLATE);
    let message = format!("the service has {all} addresses and paths: expected at most {most}");
    (all > most).then_some(("also_listen", message))
}

/// Finds endpoints that are a service's already: what listens second would take the path of the first,
/// or a part of its clients.
pub(super) fn refuse_shared(
    written: &[Written],
    services: &[Arc<Service>],
    system: System<'_>,
    findings: &mut Diagnostics,
) {
    if written.is_empty() {
        return;
    }
    let queue = system.directory("queue_directory").unwrap_or_default();
    let mut taken: HashMap<ListenKey, &Arc<Service>> = HashMap::new();
    for service in services {
        for address in service.endpoint.listen_addresses() {
            taken.insert(ListenKey::new(address, &queue), service);
        }
    }
    for Written {
        kind,
        canonical,
        places,
    } in written
    {
        let identity = (*kind, &**canonical);
        let Some(service) = services.iter().find(|s| s.identity() == identity) else {
            continue;
        };
        for (endpoint, place) in service.also_listen().endpoints.iter().zip(places) {
            for address in endpoint.listen_addresses() {
                let key = ListenKey::new(address, &queue);
                if let Some(other) = taken.insert(key, service) {
                    let message = format!(
                        "bad value of \"also_listen\": the service \"{}\" ({}) listens on \
                         {address} already: expected each address and path once",
                        other.name, other.canonical
                    );
                    findings.push(Diagnostic::error(place.clone(), message));
                }
            }
        }
    }
}

/// An address or path, as it is compared with others.
#[derive(PartialEq, Eq, Hash)]
enum ListenKey {
    Inet(std::net::SocketAddr),
    Path(PathBuf),
}

impl ListenKey {
    fn new(address: ListenAddress<'_>, queue: &Path) -> Self {
        match address {
            ListenAddress::Inet(address) => Self::Inet(address),
            ListenAddress::Path(path) => Self::Path(queue.join(path)),
        }
    }
}

#[cfg(test)]
mod tests;
