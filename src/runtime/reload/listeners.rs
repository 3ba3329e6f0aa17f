//! Opens the listeners that a new configuration needs, in such a way that all of it can be taken
//! back: the first half of a reload's transaction.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, Endpoint, Kind, Service, User};
use crate::errors::describe_error;
use crate::policy::{Entry, Plan, ServiceId};
use crate::runtime::services::{Listeners, Services, close_listeners, described};
use crate::sys::inherited::{Address, InheritedListener};
use crate::sys::listen::{self, Aside, Listener, PathKind};
use crate::sys::privilege;

/// Endpoints that cannot be opened and are named one by one.
const ERRORS_MAX: usize = 10;

/// What keeps a service from listening, with its line in the table.
type Error = (u32, String);

/// Opens all listeners that a plan needs and that are not open yet, or that clients do not find any
/// more. Sockets whose endpoints stay in use are kept, whichever service they belong to, so that no
/// client is refused.
///
/// # Errors
/// All endpoints that could not be opened, each with the reason; nothing has changed then.
pub(super) fn open(
    services: &Services,
    inherited: &[InheritedListener],
    plan: &Plan,
    config: &Config,
) -> Result<OpenedListeners, Vec<String>> {
    let mut opened = OpenedListeners::new(config.parameters.mail_owner.clone());
    let mut opening = Opening {
        opened: &mut opened,
        inherited,
        reusable: Reusable::new(services, plan),
        config,
    };
    let is_open = |entry: &&Entry| {
        let io = services.get(entry.id).filter(|_| entry.known);
        io.is_some_and(|io| io.is_found_at(&entry.service.endpoint))
    };
    let new: Vec<&Entry> = plan.entries.iter().filter(|e| !is_open(e)).collect();
    let mut errors = opening.open_paths(&new);
    for entry in new {
        errors.extend(opening.open_addresses(entry));
    }
    errors.sort_by_key(|(line, _)| *line);
    if errors.is_empty() {
        Ok(opened)
    } else {
        Err(at_most(ERRORS_MAX, errors))
    }
}

/// One missing directory can keep a thousand services from listening.
fn at_most(limit: usize, errors: Vec<Error>) -> Vec<String> {
    let more = errors.len().saturating_sub(limit);
    let errors = errors.into_iter().take(limit).map(|(_, error)| error);
    let mut errors: Vec<String> = errors.collect();
    if more > 0 {
        errors.push(format!("{more} more services cannot listen"));
    }
    errors
}

/// The listeners that are open now and that a plan may use for other services.
struct Reusable<'a> {
    /// Several for an address that two services share.
    addresses: HashMap<SocketAddr, Vec<(ServiceId, &'a Arc<Listener>)>>,
    /// The addresses that services keep under the plan.
    kept: HashSet<(ServiceId, SocketAddr)>,
    /// Paths of services that the plan removes; with the listener, if clients find it there.
    paths: HashMap<&'a Path, Option<(PathKind, &'a Arc<Listener>)>>,
}

impl<'a> Reusable<'a> {
    fn new(services: &'a Services, plan: &Plan) -> Self {
        let mut addresses: HashMap<_, Vec<_>> = HashMap::new();
        for (id, io) in services.iter() {
            let own = io.service.endpoint.addresses().iter().zip(&io.listeners);
            for (address, listener) in own {
                addresses.entry(*address).or_default().push((id, listener));
            }
        }
        let known = plan.entries.iter().filter(|entry| entry.known);
        let kept = known.flat_map(|entry| {
            let addresses = entry.service.endpoint.addresses();
            addresses.iter().map(|address| (entry.id, *address))
        });
        let mut paths = HashMap::new();
        for &id in &plan.removed {
            let Some(io) = services.get(id) else {
                continue;
            };
            if let Endpoint::Path(path) = &io.service.endpoint {
                let found = io.is_found_at(&io.service.endpoint);
                let listener = io.listeners.first().filter(|_| found);
                let kind = path_kind(io.service.kind);
                paths.insert(path.as_path(), listener.map(|l| (kind, l)));
            }
        }
        Self {
            addresses,
            kept: kept.collect(),
            paths,
        }
    }

    /// The listener that `id` may have for this address: its own, or one that its service gives up.
    /// No other service gets it.
    fn at_address(&mut self, id: ServiceId, address: SocketAddr) -> Option<Arc<Listener>> {
        let holders = self.addresses.get_mut(&address)?;
        let own = holders.iter().position(|(holder, _)| *holder == id);
        let given_up = |holder| !self.kept.contains(&(holder, address));
        let free = || holders.iter().position(|(holder, _)| given_up(*holder));
        let place = own.or_else(free)?;
        let (_, listener) = holders.swap_remove(place);
        Some(Arc::clone(listener))
    }

    /// The listener that a removed service leaves at a path, if it is of this kind. No other service
    /// gets it.
    fn at_path(&mut self, path: &Path, kind: PathKind) -> Option<Arc<Listener>> {
        let left = self.paths.get_mut(path)?;
        let (_, listener) = left.take_if(|(found, _)| *found == kind)?;
        Some(Arc::clone(listener))
    }
}

fn path_kind(kind: Kind) -> PathKind {
    match kind {
        Kind::Fifo => PathKind::Fifo,
        Kind::UnixDgram => PathKind::Datagram,
        Kind::Inet | Kind::Unix | Kind::Pass => PathKind::Stream,
    }
}

/// Opens listeners one after the other.
struct Opening<'a> {
    opened: &'a mut OpenedListeners,
    inherited: &'a [InheritedListener],
    reusable: Reusable<'a>,
    config: &'a Config,
}

impl Opening<'_> {
    /// Opens the listeners of a service with addresses. What went wrong.
    fn open_addresses(&mut self, Entry { id, service, .. }: &Entry) -> Option<Error> {
        let Endpoint::Inet(addresses) = &service.endpoint else {
            return None;
        };
        let (mut listeners, mut errors) = (Vec::new(), Vec::new());
        for &address in addresses {
            match self.open_address(*id, address, service.backlog) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    let advice = self.inet_advice(&error, address);
                    errors.push(cannot_listen(service, address, &error) + &advice);
                }
            }
        }
        if !errors.is_empty() {
            return Some((service.line, errors.join("\n")));
        }
        self.opened.listeners.push((*id, listeners));
        None
    }

    fn open_address(
        &mut self,
        id: ServiceId,
        address: SocketAddr,
        backlog: u32,
    ) -> io::Result<Arc<Listener>> {
        if let Some(listener) = self.reusable.at_address(id, address) {
            return Ok(listener);
        }
        if let Some(inherited) = self.inherited.iter().find(|l| l.serves(address)) {
            return inherited.listener().map(Arc::new);
        }
        listen::inet(address, backlog, self.config.parameters.inet_windowsize).map(Arc::new)
    }

    /// Opens all listeners with paths, as the owner of their directories: at one go, because a
    /// change of user costs more than a socket.
    fn open_paths(&mut self, new: &[&Entry]) -> Vec<Error> {
        let paths = new
            .iter()
            .filter_map(|entry| match &entry.service.endpoint {
                Endpoint::Path(path) => Some((*entry, path.as_path())),
                Endpoint::Inet(_) => None,
            });
        let paths: Vec<_> = paths.collect();
        if paths.is_empty() {
            return Vec::new();
        }
        let mut errors = Vec::new();
        let User { uid, gid } = self.opened.owner.1;
        let as_owner = privilege::as_user(uid, gid, || {
            for (entry, path) in &paths {
                match self.open_path(path, entry) {
                    Ok(listener) => self.opened.listeners.push((entry.id, vec![listener])),
                    Err(error) => errors.push(self.refusal(&entry.service, path, &error)),
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

    fn open_path(&mut self, path: &Path, entry: &Entry) -> io::Result<Arc<Listener>> {
        let service = &entry.service;
        let kind = path_kind(service.kind);
        if let Some(inherited) = self.inherited.iter().find(|l| l.is_at(path)) {
            return match inherited.address() {
                Address::Path(_, found) if *found == kind => inherited.listener().map(Arc::new),
                _ => Err(io::Error::other(wrong_kind(kind))),
            };
        }
        if let Some(listener) = self.reusable.at_path(path, kind) {
            return Ok(listener);
        }
        if entry.known || self.reusable.paths.contains_key(path) {
            self.opened.asides.extend(Aside::put(path)?);
        }
        let listener = listen::path(path, kind, service.backlog)?;
        self.opened.created.push(path.to_owned());
        Ok(Arc::new(listener))
    }

    fn refusal(&self, service: &Service, path: &Path, error: &io::Error) -> Error {
        let problem = cannot_listen(service, path.display(), error);
        (service.line, problem + &self.path_advice(error, path))
    }

    fn path_advice(&self, error: &io::Error, path: &Path) -> String {
        let parameters = &self.config.parameters;
        let directory = parameters
            .queue_directory
            .join(path.parent().unwrap_or(path));
        let (directory, owner) = (directory.display(), &self.opened.owner.0);
        match error.kind() {
            io::ErrorKind::NotFound if parameters.stand_alone => format!(
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

    fn inet_advice(&self, error: &io::Error, address: SocketAddr) -> String {
        let port = address.port();
        let similar = self.inherited.iter().find_map(|l| match l.address() {
            Address::Inet { address, .. } if address.port() == port => Some(address),
            _ => None,
        });
        match (error.kind(), similar) {
            (io::ErrorKind::AddrInUse, Some(similar)) => format!(
                "; the service manager has handed over {similar}: set \"ListenStream={address}\" \
                 in its socket unit, or name {similar} in the table"
            ),
            (io::ErrorKind::AddrInUse, None) => {
                format!("; \"ss -ltnp sport = :{port}\" shows which program has it")
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                "; no network interface of this machine has that address".into()
            }
            (io::ErrorKind::PermissionDenied, _) => {
                "; ports below 1024 are reserved for root: choose a higher one, run the master as \
                 root, or give its file the right with \"setcap cap_net_bind_service=+ep\""
                    .into()
            }
            _ => String::new(),
        }
    }
}

/// What is wrong with an inherited socket, and which setting of its socket unit is right.
fn wrong_kind(wanted: PathKind) -> &'static str {
    match wanted {
        PathKind::Stream => {
            "the service manager has handed over a socket for datagrams: set ListenStream= in its \
             socket unit, not ListenDatagram="
        }
        PathKind::Datagram => {
            "the service manager has handed over a stream socket: set ListenDatagram= in its \
             socket unit, not ListenStream="
        }
        PathKind::Fifo => {
            "the service manager has handed over a socket: take it out of its socket unit, for a \
             fifo is made by the master"
        }
    }
}

fn cannot_listen(service: &Service, place: impl Display, error: &io::Error) -> String {
    let (service, reason) = (described(service), describe_error(error));
    format!("{service}: cannot listen on {place}: {reason}")
}

/// Opens a listener anew at the path of a service, whose children have shut the former one down.
///
/// # Errors
/// The system's.
pub(in crate::runtime) fn open_again(
    service: &Service,
    place: usize,
    owner: User,
    window: u32,
) -> io::Result<Listener> {
    match &service.endpoint {
        Endpoint::Path(path) => {
            let open = || listen::path(path, path_kind(service.kind), service.backlog);
            privilege::as_user(owner.uid, owner.gid, open)
        }
        Endpoint::Inet(addresses) => listen::inet(addresses[place], service.backlog, window),
    }
}

/// Listeners that were opened for a plan. Unless the plan is carried out, dropping this takes back
/// what was made in the file system.
#[derive(Debug)]
pub(super) struct OpenedListeners {
    listeners: Vec<(ServiceId, Listeners)>,
    owner: (String, User),
    created: Vec<PathBuf>,
    asides: Vec<Aside>,
}

impl OpenedListeners {
    fn new(owner: (String, User)) -> Self {
        Self {
            listeners: Vec::new(),
            owner,
            created: Vec::new(),
            asides: Vec::new(),
        }
    }

    /// Works on the sockets' directories with no more rights than their owner has.
    fn as_owner(&self, act: impl FnOnce()) {
        let User { uid, gid } = self.owner.1;
        // Without the change of user nothing is done, and the file system stays as it is.
        let _ = privilege::as_user(uid, gid, || {
            act();
            Ok(())
        });
    }

    /// The plan is carried out: what was made stays, and what it replaced is removed.
    pub(super) fn commit(mut self) -> Vec<(ServiceId, Listeners)> {
        self.created.clear();
        let asides = std::mem::take(&mut self.asides);
        self.as_owner(|| asides.into_iter().for_each(Aside::forget));
        std::mem::take(&mut self.listeners)
    }
}

impl Drop for OpenedListeners {
    fn drop(&mut self) {
        let created = std::mem::take(&mut self.created);
        let asides = std::mem::take(&mut self.asides);
        self.as_owner(|| {
            for path in created {
                // A name that stays behind is removed by the next master that listens there.
                let _ = std::fs::remove_file(path);
            }
            // This puts the former listeners back.
            drop(asides);
        });
        // Clients may have found them already.
        for (_, listeners) in std::mem::take(&mut self.listeners) {
            close_listeners(listeners);
        }
    }
}
