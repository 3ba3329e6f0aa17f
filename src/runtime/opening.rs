//! Opening the listeners that a new configuration needs, in such a way that all of it can be taken
//! back: the first half of a reload's transaction.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::ports::{Kept, Ports, described};
use crate::config::{Config, Endpoint, Kind, Service, User};
use crate::errors::describe_error;
use crate::policy::{Entry, Plan, ServiceId};
use crate::sys::handed::{Address, Handed};
use crate::sys::listen::{self, Aside, PathKind};
use crate::sys::privilege;

/// So many endpoints that cannot be opened are named one by one.
const ERRORS_MAX: usize = 10;

/// Opens all listeners that a plan needs and that are not open yet, or that clients do not find any
/// more. Addresses that stay in use keep their sockets, whatever service they belong to, so that no
/// client is refused.
///
/// # Errors
/// All endpoints that could not be opened, each with the reason; nothing has changed then.
pub(super) fn open(
    ports: &Ports,
    handed: &[Handed],
    plan: &Plan,
    config: &Config,
) -> Result<Opened, Vec<String>> {
    let mut opened = Opened::default();
    opened.owner = config.parameters.mail_owner.clone();
    opened.queue = config.parameters.queue_directory.clone();
    opened.stand_alone = config.parameters.stand_alone;
    opened.window = config.parameters.inet_windowsize;
    let shared = Shared::new(ports, plan);
    let new = plan
        .entries
        .iter()
        .filter(|entry| !(entry.known && ports.is_found_at(entry.id, &entry.service.endpoint)));
    let mut errors = opened.paths(new.clone(), &shared, handed);
    for Entry { id, service, .. } in new {
        if let Endpoint::Inet(addresses) = &service.endpoint {
            let open = |a: &SocketAddr| opened.inet(*id, *a, service, &shared, handed);
            match collect(addresses.iter().map(open)) {
                Ok(listeners) => opened.listeners.push((*id, listeners)),
                Err(error) => errors.push((service.line, error)),
            }
        }
    }
    errors.sort_by_key(|(line, _)| *line);
    match errors.is_empty() {
        true => Ok(opened),
        false => Err(at_most(ERRORS_MAX, errors)),
    }
}

/// What keeps a service from listening, with its line in the table.
type Error = (u32, String);

/// One missing directory can be in the way of a thousand services.
fn at_most(limit: usize, errors: Vec<Error>) -> Vec<String> {
    let more = errors.len().saturating_sub(limit);
    let errors = errors.into_iter().take(limit).map(|(_, error)| error);
    let mut errors: Vec<String> = errors.collect();
    if more > 0 {
        errors.push(format!("{more} more services cannot listen"));
    }
    errors
}

fn collect<T>(results: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, String> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    match errors.is_empty() {
        true => Ok(values),
        false => Err(errors.join("\n")),
    }
}

/// The endpoints that are open now and that a plan may use for others.
struct Shared<'a> {
    /// Who has an address, and with which socket: several, when two services share it.
    sockets: HashMap<SocketAddr, Vec<(ServiceId, &'a OwnedFd)>>,
    /// The addresses that services keep under the plan.
    kept: HashSet<(ServiceId, SocketAddr)>,
    /// The paths of services that the plan removes.
    paths: HashSet<PathBuf>,
}

impl<'a> Shared<'a> {
    fn new(ports: &'a Ports, plan: &Plan) -> Self {
        let mut sockets: HashMap<_, Vec<_>> = HashMap::new();
        for (id, address, socket) in ports.addresses() {
            sockets.entry(address).or_default().push((id, socket));
        }
        let known = plan.entries.iter().filter(|entry| entry.known);
        let kept = known.flat_map(|entry| {
            let addresses = entry.service.endpoint.addresses();
            addresses.iter().map(|address| (entry.id, *address))
        });
        let removed = plan.removed.iter().filter_map(|&id| ports.service(id));
        let paths = removed.filter_map(|service| match &service.endpoint {
            Endpoint::Path(path) => Some(path.clone()),
            Endpoint::Inet(_) => None,
        });
        Self {
            sockets,
            kept: kept.collect(),
            paths: paths.collect(),
        }
    }

    /// The socket that `id` may have for this address, and whose it is: its own, or one that its
    /// holder gives up.
    fn socket(&self, id: ServiceId, address: SocketAddr) -> Option<(ServiceId, &OwnedFd)> {
        let holders = self.sockets.get(&address)?;
        let own = holders.iter().find(|(holder, _)| *holder == id);
        let given_up = |holder| !self.kept.contains(&(holder, address));
        let free = || holders.iter().find(|(holder, _)| given_up(*holder));
        own.or_else(free).copied()
    }
}

/// Listeners that were opened for a plan. Unless the plan is carried out, dropping this takes back
/// what was made in the file system.
#[derive(Debug, Default)]
pub(super) struct Opened {
    listeners: Vec<(ServiceId, Vec<OwnedFd>)>,
    /// The sockets that live on in these listeners, by who has them now.
    handed_on: HashSet<(ServiceId, SocketAddr)>,
    /// The service manager's listeners that have found a service.
    taken_over: Vec<Address>,
    owner: (String, User),
    queue: PathBuf,
    stand_alone: bool,
    window: u32,
    created: Vec<PathBuf>,
    asides: Vec<Aside>,
}

impl Opened {
    fn inet(
        &mut self,
        id: ServiceId,
        address: SocketAddr,
        service: &Service,
        shared: &Shared<'_>,
        handed: &[Handed],
    ) -> Result<OwnedFd, String> {
        let is_here = |handed: &&Handed| *handed.address() == Address::Inet(address);
        let socket = if let Some((holder, socket)) = shared.socket(id, address) {
            self.handed_on.insert((holder, address));
            socket.try_clone()
        } else if let Some(handed) = handed.iter().find(is_here) {
            self.taken_over.push(handed.address().clone());
            handed.try_clone()
        } else {
            listen::inet(address, service.backlog, self.window)
        };
        socket.map_err(|error| {
            cannot_listen(service, address, &error) + &inet_advice(&error, address)
        })
    }

    /// Opens all listeners with paths, as the owner of their directories: at one go, because to
    /// become somebody else and root again costs more than to make a socket.
    fn paths<'a>(
        &mut self,
        entries: impl Iterator<Item = &'a Entry>,
        shared: &Shared<'_>,
        handed: &[Handed],
    ) -> Vec<Error> {
        let paths = entries.filter_map(|entry| match &entry.service.endpoint {
            Endpoint::Path(path) => Some((entry, path)),
            Endpoint::Inet(_) => None,
        });
        let paths: Vec<_> = paths.collect();
        if paths.is_empty() {
            return Vec::new();
        }
        let mut errors = Vec::new();
        let User { uid, gid } = self.owner.1;
        let as_owner = privilege::as_user(uid, gid, || {
            for (Entry { id, service, known }, path) in &paths {
                let replaces = *known || shared.paths.contains(*path);
                match self.path(path, service, replaces, handed) {
                    Ok(listener) => self.listeners.push((*id, vec![listener])),
                    Err(error) => errors.push(self.refusal(service, path, &error)),
                }
            }
            Ok(())
        });
        if let Err(error) = as_owner {
            let refused = paths.iter();
            errors.extend(refused.map(|(e, path)| self.refusal(&e.service, path, &error)));
        }
        errors
    }

    fn refusal(&self, service: &Service, path: &Path, error: &io::Error) -> Error {
        let problem = cannot_listen(service, path.display(), error);
        (service.line, problem + &self.path_advice(error, path))
    }

    fn path(
        &mut self,
        path: &Path,
        service: &Service,
        replaces: bool,
        handed: &[Handed],
    ) -> io::Result<OwnedFd> {
        let kind = match service.kind {
            Kind::Fifo => PathKind::Fifo,
            Kind::UnixDgram => PathKind::Datagram,
            _ => PathKind::Stream,
        };
        let is_here = |handed: &&Handed| handed.is_at(&self.queue, path, kind);
        if let Some(handed) = handed.iter().find(is_here) {
            self.taken_over.push(handed.address().clone());
            return handed.try_clone();
        }
        let aside = match replaces {
            true => Aside::put(path)?,
            false => None,
        };
        let listener = listen::path(path, kind, service.backlog)?;
        self.created.push(path.to_owned());
        self.asides.extend(aside);
        Ok(listener)
    }

    /// Works on the sockets' directories with no more rights than their owner has.
    fn as_owner(&self, act: impl FnOnce()) {
        let User { uid, gid } = self.owner.1;
        // Without the change of user nothing is done, which is no worse than what was there.
        let _ = privilege::as_user(uid, gid, || {
            act();
            Ok(())
        });
    }

    fn path_advice(&self, error: &io::Error, path: &Path) -> String {
        let directory = self.queue.join(path.parent().unwrap_or(path));
        let (directory, owner) = (directory.display(), &self.owner.0);
        match error.kind() {
            io::ErrorKind::NotFound if self.stand_alone => format!(
                "; the directory {directory} is missing: \"mkdir -p {directory}\", as {owner}"
            ),
            io::ErrorKind::NotFound => {
                format!("; the directory {directory} is missing: \"postfix check\" makes it")
            }
            io::ErrorKind::PermissionDenied => {
                format!("; {directory} must belong to mail_owner: \"chown {owner} {directory}\"")
            }
            io::ErrorKind::IsADirectory => "; remove it: a socket is to be there".into(),
            _ => String::new(),
        }
    }

    /// The plan is carried out: what was made stays, and what it replaced goes.
    pub(super) fn keep(mut self) -> Kept {
        self.created.clear();
        let asides = std::mem::take(&mut self.asides);
        self.as_owner(|| asides.into_iter().for_each(Aside::forget));
        Kept {
            listeners: std::mem::take(&mut self.listeners),
            handed_on: std::mem::take(&mut self.handed_on),
            taken_over: std::mem::take(&mut self.taken_over),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let created = std::mem::take(&mut self.created);
        let asides = std::mem::take(&mut self.asides);
        self.as_owner(|| {
            for path in created {
                // A name that stays behind is removed by the next who listens there.
                let _ = std::fs::remove_file(path);
            }
            // This puts the former listeners back.
            drop(asides);
        });
    }
}

fn cannot_listen(service: &Service, place: impl Display, error: &io::Error) -> String {
    let (service, reason) = (described(service), describe_error(error));
    format!("{service}: cannot listen on {place}: {reason}")
}

fn inet_advice(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!("; \"ss -ltnp sport = :{port}\" shows which program has it")
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no network interface of this machine has that address".into()
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 are reserved for root: choose a \
             higher one, run the master as root, or give its file the right with \
             \"setcap cap_net_bind_service=+ep\""
            .into(),
        _ => String::new(),
    }
}
