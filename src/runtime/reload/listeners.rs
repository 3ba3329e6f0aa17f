//! Opens the listeners that a new configuration needs, in such a way that all of it can be taken
//! back: the first half of a reload's transaction.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;

use crate::config::{
    Config, Endpoint, Kind, ListenAddress, Parameters, Service, SocketRights, User,
};
use crate::errors::describe_error;
use crate::policy::{Entry, Plan};
use crate::runtime::services::{Services, described, is_found};
use crate::sys::file;
use crate::sys::inherited::{Address, InheritedListener};
use crate::sys::listen::{self, Aside, Listener, PathKind, PathRights, TcpOptions, is_directory};
use crate::sys::privilege::{self, Capability};

use super::foreign::Foreign;
use super::opened::{Files, OpenedListeners};

/// Endpoints that cannot be opened and are named one by one.
const ERRORS_MAX: usize = 10;

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
) -> anyhow::Result<OpenedListeners> {
    let mut opening = Opening {
        opened: OpenedListeners {
            owner: config.parameters.mail_owner.1,
            listeners: Vec::new(),
            in_queue: Files::default(),
            elsewhere: Files::default(),
            warnings: Vec::new(),
        },
        foreign: Foreign::default(),
        errors: Vec::new(),
        services,
        given_up: given_up(services, plan),
        inherited,
        config,
        is_root: privilege::is_root(),
    };
    let is_open = |entry: &&Entry| {
        let io = services.get(entry.id).filter(|_| entry.known);
        io.is_some_and(|io| io.is_found_as(&entry.service))
    };
    let new: Vec<&Entry> = plan.entries.iter().filter(|e| !is_open(e)).collect();
    opening.open_all(&new);
    opening.finish()
}

/// What a listener must have to be another's successor: its clients stay with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Place<'a> {
    address: ListenAddress<'a>,
    kind: PathKind,
    rights: SocketRights,
}

impl<'a> Place<'a> {
    fn new(service: &Service, address: ListenAddress<'a>, rights: SocketRights) -> Self {
        let (kind, rights) = match address {
            ListenAddress::Path(_) => (path_kind(service.kind), rights),
            ListenAddress::Inet(_) => (PathKind::Stream, SocketRights::DEFAULT),
        };
        Self {
            address,
            kind,
            rights,
        }
    }

    /// All of a service, in the order of its listeners.
    fn all(service: &'a Service) -> impl Iterator<Item = Self> {
        let also = service.also_listen();
        let own = service.endpoint.listen_addresses();
        let own = own.map(|address| Self::new(service, address, SocketRights::DEFAULT));
        let others = also.endpoints.iter().flat_map(Endpoint::listen_addresses);
        own.chain(others.map(|address| Self::new(service, address, also.rights)))
    }

    /// Whether it is in the queue directory, where its socket is made as the owner of that.
    fn is_in_queue(&self) -> bool {
        matches!(self.address, ListenAddress::Path(path) if path.is_relative())
    }

    /// A new listener at a path.
    fn listen(&self, path: &Path, backlog: u32) -> io::Result<Listener> {
        let SocketRights { mode, uid, gid } = self.rights;
        listen::path(path, self.kind, backlog, PathRights { mode, uid, gid })
    }
}

/// The listeners that services give up under a plan, by their places; several where services share
/// an address.
fn given_up<'a>(
    services: &'a Services,
    plan: &'a Plan,
) -> HashMap<Place<'a>, Vec<&'a Arc<Listener>>> {
    let known = plan.entries.iter().filter(|entry| entry.known);
    let kept = known.flat_map(|entry| Place::all(&entry.service).map(|place| (entry.id, place)));
    let kept: HashSet<_> = kept.collect();
    let mut given_up: HashMap<_, Vec<_>> = HashMap::new();
    for (id, io) in services.iter() {
        for (place, listener) in Place::all(&io.service).zip(&io.listeners) {
            if !kept.contains(&(id, place)) && is_found((place.address, listener)) {
                given_up.entry(place).or_default().push(listener);
            }
        }
    }
    given_up
}

/// Whether a listener that was handed over is one for this address.
pub(in crate::runtime) fn is_for(inherited: &InheritedListener, address: ListenAddress) -> bool {
    match address {
        ListenAddress::Path(path) => inherited.is_at(path),
        ListenAddress::Inet(address) => inherited.serves(address),
    }
}

/// How a service's TCP listener is made that has its address for itself.
fn tcp_options(service: &Service, parameters: &Parameters) -> TcpOptions {
    TcpOptions {
        backlog: service.backlog,
        window: parameters.inet_windowsize,
        missing: parameters.bind_missing_addresses,
        share: false,
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
    opened: OpenedListeners,
    foreign: Foreign,
    /// What keeps services from listening, with their tables and lines.
    errors: Vec<(Arc<Path>, u32, String)>,
    services: &'a Services,
    /// What services give up under the plan. No two others get the same.
    given_up: HashMap<Place<'a>, Vec<&'a Arc<Listener>>>,
    inherited: &'a [InheritedListener],
    config: &'a Config,
    is_root: bool,
}

impl<'a> Opening<'a> {
    /// What was opened, or what went wrong: one missing directory can keep a thousand services from
    /// listening.
    fn finish(mut self) -> anyhow::Result<OpenedListeners> {
        if self.errors.is_empty() {
            self.opened.warnings.append(&mut self.foreign.warnings);
            return Ok(self.opened);
        }
        self.errors.sort();
        let more = self.errors.len().saturating_sub(ERRORS_MAX);
        let errors = self.errors.into_iter().take(ERRORS_MAX);
        let mut errors: Vec<_> = errors.map(|(.., error)| error).collect();
        if more > 0 {
            errors.push(format!("{more} more services cannot listen"));
        }
        Err(anyhow!(errors.join("\n")))
    }

    /// Opens the listeners of services. Those in the queue directory come first, and as its owner: at
    /// one go, because a change of user costs more than a socket.
    fn open_all(&mut self, new: &[&'a Entry]) {
        let places = |entry: &&'a Entry| Place::all(&entry.service).map(|place| (place, None));
        let mut all: Vec<Vec<(Place, Option<Arc<Listener>>)>> =
            new.iter().map(|entry| places(entry).collect()).collect();
        let mut open = |opening: &mut Self, in_queue: bool| {
            for (entry, places) in new.iter().zip(&mut all) {
                let places = places
                    .iter_mut()
                    .filter(|(p, _)| p.is_in_queue() == in_queue);
                for (place, listener) in places {
                    *listener = opening.open(entry, *place);
                }
            }
        };
        let User { uid, gid } = self.opened.owner;
        let in_queue = |entry: &&Entry| Place::all(&entry.service).any(|p| p.is_in_queue());
        if new.iter().any(in_queue) {
            let as_owner = privilege::as_user(uid, gid, || {
                open(self, true);
                Ok(())
            });
            if let Err(error) = as_owner {
                let in_queue = new.iter().copied().filter(|entry| in_queue(entry));
                for entry in in_queue {
                    let problem = cannot_listen(&entry.service, &entry.service.name, &error);
                    self.error(&entry.service, problem);
                }
            }
        }
        open(self, false);
        for (entry, places) in new.iter().zip(all) {
            // Collected, they would stay in the memory of the places, 256 bytes for each service.
            let mut listeners = Vec::with_capacity(places.len());
            listeners.extend(places.into_iter().filter_map(|(_, listener)| listener));
            self.opened.listeners.push((entry.id, listeners));
        }
    }

    /// The listener of a service at a place: the service's own, or one that another gives up, or the
    /// service manager's, or a new one. None if there is an error.
    fn open(&mut self, entry: &'a Entry, place: Place<'a>) -> Option<Arc<Listener>> {
        let io = self.services.get(entry.id).filter(|_| entry.known);
        let former = io
            .into_iter()
            .flat_map(|io| Place::all(&io.service).zip(&io.listeners));
        let mut former = former.filter(|(former, _)| former.address == place.address);
        let former = former.next();
        let own = former.filter(|(at, listener)| *at == place && is_found((at.address, listener)));
        let given_up = || self.given_up.get_mut(&place)?.pop();
        if let Some(listener) = own.map(|(_, own)| own).or_else(given_up) {
            return Some(Arc::clone(listener));
        }
        let mut inherited = self.inherited.iter();
        let opened = match (inherited.find(|l| is_for(l, place.address)), place.address) {
            (Some(inherited), _) => take(inherited, place),
            (None, ListenAddress::Inet(address)) => self.open_new(&entry.service, address),
            (None, ListenAddress::Path(path)) => self.open_path(entry, place, path),
        };
        match (opened, former) {
            (Ok(listener), _) => Some(Arc::new(listener)),
            // Its clients, and the reload, do not depend on what the owner of the directory does to
            // it.
            (Err(error), Some((_, listener))) if place.address.is_path() => {
                let problem = self.cannot_listen(&entry.service, place.address, &error);
                let kept = "it keeps its former listener, which new clients may not find";
                self.opened.warnings.push(format!("{problem}; {kept}"));
                Some(Arc::clone(listener))
            }
            (Err(error), _) => {
                let problem = self.cannot_listen(&entry.service, place.address, &error);
                self.error(&entry.service, problem);
                None
            }
        }
    }

    /// Where the system refuses the address because another listener has it, that is looked for. A
    /// listener for all addresses of the port and one for this address do not disturb each other.
    fn open_new(&mut self, service: &Service, address: SocketAddr) -> io::Result<Listener> {
        let alone = tcp_options(service, &self.config.parameters);
        let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        let opened = listen::inet(address, alone);
        if !opened.as_ref().is_err_and(in_use) {
            return opened;
        }
        if let Some(left) = self.foreign.take_over(address)? {
            return Ok(left);
        }
        let share = TcpOptions {
            share: true,
            ..alone
        };
        listen::inet(address, share).map_err(|error| {
            let holder = Some(&error).filter(|error| in_use(error));
            let explained = holder.and_then(|_| self.foreign.explain(address));
            explained.unwrap_or(error)
        })
    }

    /// By the directory's mode, its owner could keep a master that root runs from starting.
    fn unlock(&mut self, directory: &Path) {
        if let Ok(Some(mode)) = file::restore_access(directory) {
            let directory = directory.display();
            self.opened.warnings.push(format!(
                "{directory}: its mode, {mode:03o}, kept its owner from making sockets in it: the owner \
                 has all rights now"
            ));
        }
    }

    fn open_path(&mut self, entry: &Entry, place: Place, path: &Path) -> io::Result<Listener> {
        let service = &entry.service;
        if place.is_in_queue() && !entry.known && self.is_root {
            self.unlock(path.parent().unwrap_or(path));
        }
        let files = if place.is_in_queue() {
            &mut self.opened.in_queue
        } else {
            &mut self.opened.elsewhere
        };
        // What is there may be in use; and the owner of the directory can have put anything there.
        let is_reload = self.services.iter().next().is_some();
        if is_reload || is_directory(path) {
            let aside = Aside::put(path)?;
            if let Some(name) = aside.as_ref().and_then(Aside::directory) {
                let (service, path, name) = (described(service), path.display(), name.display());
                self.opened.warnings.push(format!(
                    "{service}: a directory was in the place of {path}: it is {name} now; look at \
                     what is in it, and remove it"
                ));
            }
            files.asides.extend(aside);
        }
        let listener = place.listen(path, service.backlog)?;
        files.created.push(path.to_owned());
        Ok(listener)
    }

    fn error(&mut self, service: &Service, problem: String) {
        let table = Arc::clone(&service.table);
        self.errors.push((table, service.line, problem));
    }

    /// What is wrong, and what to do.
    fn cannot_listen(&self, service: &Service, at: ListenAddress, error: &io::Error) -> String {
        let advice = match at {
            ListenAddress::Inet(address) => self.inet_advice(error, address),
            ListenAddress::Path(path) => self.path_advice(error, path),
        };
        cannot_listen(service, at, error) + &advice
    }

    fn path_advice(&self, error: &io::Error, path: &Path) -> String {
        let parameters = &self.config.parameters;
        let directory = parameters
            .queue_directory
            .join(path.parent().unwrap_or(path));
        let (directory, owner) = (directory.display(), &parameters.mail_owner.0);
        match error.kind() {
            io::ErrorKind::NotFound if path.is_absolute() => {
                format!("; the directory {directory} is missing: make it")
            }
            _ if path.is_absolute() => String::new(),
            io::ErrorKind::NotFound if parameters.stand_alone => format!(
                "; the directory {directory} is missing: \"mkdir -p {directory}\", as {owner}"
            ),
            io::ErrorKind::NotFound => {
                format!("; the directory {directory} is missing: \"postfix check\" makes it")
            }
            io::ErrorKind::PermissionDenied => {
                format!("; {directory} must belong to mail_owner: \"chown {owner} {directory}\"")
            }
            _ => String::new(),
        }
    }

    fn inet_advice(&self, error: &io::Error, address: SocketAddr) -> String {
        let port = address.port();
        let overlaps = |inherited: &&InheritedListener| inherited.overlaps(address);
        let similar = self.inherited.iter().find(overlaps).map(|l| l.address());
        match (error.kind(), similar) {
            (io::ErrorKind::AddrInUse, Some(similar)) => format!(
                "; the service manager has handed over {similar}: set \"ListenStream={address}\" \
                 in its socket unit, or name {similar} in the table"
            ),
            (io::ErrorKind::AddrInUse, None) => {
                format!("; \"ss -ltnp sport = :{port}\" shows which program has it")
            }
            (io::ErrorKind::AddrNotAvailable, _) => {
                "; no network interface of this machine has that address: set \
                 bind_missing_addresses to yes to listen there before one has"
                    .into()
            }
            (io::ErrorKind::PermissionDenied, _)
                if privilege::is_root() && !Capability::NetBindService.is_there() =>
            {
                "; root lacks CAP_NET_BIND_SERVICE, which ports below 1024 need: give it, or \
                 choose a higher port"
                    .into()
            }
            (io::ErrorKind::PermissionDenied, _) => {
                "; ports below 1024 are reserved for root: choose a higher one, run the master as \
                 root, or have a service manager hand the socket over (ListenStream= of systemd)"
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

/// Another descriptor of what the service manager has handed over for a place.
fn take(inherited: &InheritedListener, place: Place) -> io::Result<Listener> {
    match (inherited.address(), place.address) {
        (Address::Path(_, kind), ListenAddress::Path(path)) if *kind == place.kind => {
            Ok(inherited.listener()?.found_at(path))
        }
        (Address::Inet { .. }, ListenAddress::Inet(_)) => inherited.listener(),
        _ => Err(io::Error::other(wrong_kind(place.kind))),
    }
}

/// Opens a listener of a service anew, whose children have shut the former one down.
///
/// # Errors
/// The system's.
pub(in crate::runtime) fn open_again(
    service: &Service,
    place: usize,
    parameters: &Parameters,
) -> io::Result<Listener> {
    let place = Place::all(service)
        .nth(place)
        .ok_or(io::ErrorKind::NotFound)?;
    match place.address {
        ListenAddress::Path(path) if place.is_in_queue() => {
            let User { uid, gid } = parameters.mail_owner.1;
            privilege::as_user(uid, gid, || place.listen(path, service.backlog))
        }
        ListenAddress::Path(path) => place.listen(path, service.backlog),
        ListenAddress::Inet(address) => {
            let share = true;
            let options = tcp_options(service, parameters);
            listen::inet(address, TcpOptions { share, ..options })
        }
    }
}
