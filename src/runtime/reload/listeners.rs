//! Opens the listeners that a new configuration needs, in such a way that all of it can be taken
//! back: the first half of a reload's transaction.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;

use crate::config::{Config, Endpoint, Kind, Parameters, Service, User};
use crate::errors::describe_error;
use crate::policy::{Entry, Plan, ServiceId};
use crate::runtime::services::{Listeners, ServiceIo, Services, close_listeners, described};
use crate::sys::file;
use crate::sys::inherited::{Address, InheritedListener};
use crate::sys::listen::{self, Aside, Listener, PathKind, TcpOptions, is_directory};
use crate::sys::privilege::{self, Capability};

use super::foreign::Foreign;

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
            created: Vec::new(),
            asides: Vec::new(),
            warnings: Vec::new(),
        },
        foreign: Foreign::default(),
        errors: Vec::new(),
        services,
        given_up: given_up(services, plan),
        left: left(services, plan),
        inherited,
        config,
    };
    let is_open = |entry: &&Entry| {
        let io = services.get(entry.id).filter(|_| entry.known);
        io.is_some_and(|io| io.is_found_at(&entry.service.endpoint))
    };
    let new: Vec<&Entry> = plan.entries.iter().filter(|e| !is_open(e)).collect();
    opening.open_paths(&new);
    for entry in new {
        opening.open_addresses(entry);
    }
    opening.finish()
}

/// The listeners that services give up under a plan, by address; several where services share one.
fn given_up<'a>(
    services: &'a Services,
    plan: &Plan,
) -> HashMap<SocketAddr, Vec<&'a Arc<Listener>>> {
    let known = plan.entries.iter().filter(|entry| entry.known);
    let kept: HashSet<_> = known
        .flat_map(|Entry { id, service, .. }| {
            let addresses = service.endpoint.addresses().iter();
            addresses.map(|address| (*id, *address))
        })
        .collect();
    let mut given_up: HashMap<_, Vec<_>> = HashMap::new();
    for (id, io) in services.iter() {
        for (address, listener) in by_address(io) {
            if !kept.contains(&(id, *address)) {
                given_up.entry(*address).or_default().push(listener);
            }
        }
    }
    given_up
}

/// The paths of services that a plan removes; with the service, if clients find it there.
fn left<'a>(services: &'a Services, plan: &Plan) -> HashMap<&'a Path, Option<&'a ServiceIo>> {
    let removed = plan.removed.iter().filter_map(|id| services.get(*id));
    let paths = removed.filter_map(|io| {
        let endpoint = &io.service.endpoint;
        let Endpoint::Path(path) = endpoint else {
            return None;
        };
        Some((path.as_path(), io.is_found_at(endpoint).then_some(io)))
    });
    paths.collect()
}

/// The listeners with addresses, but for what a child has shut down.
fn by_address(io: &ServiceIo) -> impl Iterator<Item = (&SocketAddr, &Arc<Listener>)> {
    let all = io.service.endpoint.addresses().iter().zip(&io.listeners);
    all.filter(|(_, listener)| listener.is_listening())
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
    given_up: HashMap<SocketAddr, Vec<&'a Arc<Listener>>>,
    left: HashMap<&'a Path, Option<&'a ServiceIo>>,
    inherited: &'a [InheritedListener],
    config: &'a Config,
}

impl Opening<'_> {
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

    /// Opens the listeners of a service with addresses.
    fn open_addresses(&mut self, entry: &Entry) {
        let Endpoint::Inet(addresses) = &entry.service.endpoint else {
            return;
        };
        let (mut listeners, mut errors) = (Vec::new(), Vec::new());
        for &address in addresses {
            match self.open_address(entry, address) {
                Ok(listener) => listeners.push(listener),
                Err(error) => {
                    let advice = self.inet_advice(&error, address);
                    errors.push(cannot_listen(&entry.service, address, &error) + &advice);
                }
            }
        }
        self.opened.listeners.push((entry.id, listeners));
        if !errors.is_empty() {
            self.error(&entry.service, errors.join("\n"));
        }
    }

    fn open_address(&mut self, entry: &Entry, address: SocketAddr) -> io::Result<Arc<Listener>> {
        let io = self.services.get(entry.id).filter(|_| entry.known);
        let own = io.and_then(|io| by_address(io).find(|(own, _)| **own == address));
        let given_up = || self.given_up.get_mut(&address)?.pop();
        if let Some(listener) = own.map(|(_, own)| own).or_else(given_up) {
            return Ok(Arc::clone(listener));
        }
        if let Some(inherited) = self.inherited.iter().find(|l| l.serves(address)) {
            return inherited.listener().map(Arc::new);
        }
        self.open_new(&entry.service, address).map(Arc::new)
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

    /// Opens all listeners with paths, as the owner of their directories: at one go, because a
    /// change of user costs more than a socket.
    fn open_paths(&mut self, new: &[&Entry]) {
        let mut paths = Vec::new();
        for &entry in new {
            if let Endpoint::Path(path) = &entry.service.endpoint {
                paths.push((entry, path.as_path()));
            }
        }
        if paths.is_empty() {
            return;
        }
        let User { uid, gid } = self.opened.owner;
        let is_root = privilege::is_root();
        let as_owner = privilege::as_user(uid, gid, || {
            for (entry, path) in &paths {
                if !entry.known && is_root {
                    self.unlock(path.parent().unwrap_or(path));
                }
                match self.open_path(path, entry) {
                    Ok(listener) => self.opened.listeners.push((entry.id, vec![listener])),
                    Err(error) => self.keep_or_refuse(entry, path, &error),
                }
            }
            Ok(())
        });
        if let Err(error) = as_owner {
            for (entry, path) in paths {
                self.refuse(&entry.service, path, &error);
            }
        }
    }

    /// The owner of the directory, who is not root, could keep the master from starting by its mode.
    fn unlock(&mut self, directory: &Path) {
        if let Ok(Some(mode)) = file::restore_access(directory) {
            let directory = directory.display();
            self.opened.warnings.push(format!(
                "{directory}: its mode, {mode:03o}, kept its owner from making sockets in it: the owner \
                 has all rights now"
            ));
        }
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
        let left = self.left.get_mut(path);
        let fits = |io: &mut &ServiceIo| path_kind(io.service.kind) == kind;
        if let Some(io) = left.and_then(|left| left.take_if(fits)) {
            if let Some(listener) = io.listeners.first() {
                return Ok(Arc::clone(listener));
            }
        }
        // The owner of the directory can have put anything there.
        if entry.known || self.left.contains_key(path) || is_directory(path) {
            let aside = Aside::put(path)?;
            if let Some(name) = aside.as_ref().and_then(Aside::directory) {
                let (service, path, name) = (described(service), path.display(), name.display());
                self.opened.warnings.push(format!(
                    "{service}: a directory was in the place of {path}: it is {name} now; look at \
                     what is in it, and remove it"
                ));
            }
            self.opened.asides.extend(aside);
        }
        let listener = listen::path(path, kind, service.backlog)?;
        self.opened.created.push(path.to_owned());
        Ok(Arc::new(listener))
    }

    /// A service that is there goes on with the listener that it has: its clients, and the reload, do
    /// not depend on what the owner of the directory does to it.
    fn keep_or_refuse(&mut self, entry: &Entry, path: &Path, error: &io::Error) {
        let io = self.services.get(entry.id).filter(|_| entry.known);
        if io.is_none_or(|io| io.service.endpoint != entry.service.endpoint) {
            return self.refuse(&entry.service, path, error);
        }
        let problem = cannot_listen(&entry.service, path.display(), error);
        let advice = self.path_advice(error, path);
        let kept = "it keeps its former listener, which new clients may not find";
        self.opened
            .warnings
            .push(format!("{problem}{advice}; {kept}"));
    }

    fn refuse(&mut self, service: &Service, path: &Path, error: &io::Error) {
        let problem = cannot_listen(service, path.display(), error);
        let problem = problem + &self.path_advice(error, path);
        self.error(service, problem);
    }

    fn error(&mut self, service: &Service, problem: String) {
        let table = Arc::clone(&service.table);
        self.errors.push((table, service.line, problem));
    }

    fn path_advice(&self, error: &io::Error, path: &Path) -> String {
        let parameters = &self.config.parameters;
        let directory = parameters
            .queue_directory
            .join(path.parent().unwrap_or(path));
        let (directory, owner) = (directory.display(), &parameters.mail_owner.0);
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

/// Opens a listener anew at the path of a service, whose children have shut the former one down.
///
/// # Errors
/// The system's.
pub(in crate::runtime) fn open_again(
    service: &Service,
    place: usize,
    parameters: &Parameters,
) -> io::Result<Listener> {
    match &service.endpoint {
        Endpoint::Path(path) => {
            let owner = parameters.mail_owner.1;
            let open = || listen::path(path, path_kind(service.kind), service.backlog);
            privilege::as_user(owner.uid, owner.gid, open)
        }
        Endpoint::Inet(addresses) => {
            let share = true;
            let options = tcp_options(service, parameters);
            listen::inet(addresses[place], TcpOptions { share, ..options })
        }
    }
}

/// Listeners that were opened for a plan. Unless the plan is carried out, dropping this takes back
/// what was made in the file system.
pub(super) struct OpenedListeners {
    owner: User,
    listeners: Vec<(ServiceId, Listeners)>,
    created: Vec<PathBuf>,
    asides: Vec<Aside>,
    pub(super) warnings: Vec<String>,
}

impl OpenedListeners {
    /// The plan is carried out: what was made stays, and what it replaced is removed.
    pub(super) fn commit(mut self) -> Vec<(ServiceId, Listeners)> {
        self.created.clear();
        as_owner(self.owner, || self.asides.drain(..).for_each(Aside::forget));
        std::mem::take(&mut self.listeners)
    }
}

impl Drop for OpenedListeners {
    fn drop(&mut self) {
        as_owner(self.owner, || {
            for path in &self.created {
                // A name that stays behind is removed by the next master that listens there.
                let _ = std::fs::remove_file(path);
            }
            // This puts the former listeners back.
            self.asides.clear();
        });
        for (_, listeners) in self.listeners.drain(..) {
            // What was taken over stays where it was found; the service's own stay with it.
            let (given, new): (Vec<_>, _) = listeners.into_iter().partition(|l| l.is_given());
            let taken = given.into_iter().filter_map(Arc::into_inner);
            taken.for_each(Listener::abandon);
            // Clients may have found them already.
            close_listeners(new);
        }
    }
}

/// Works on the sockets' directories with no more rights than their owner has.
fn as_owner(owner: User, act: impl FnOnce()) {
    // Without the change of user nothing is done, and the file system stays as it is.
    let _ = privilege::as_user(owner.uid, owner.gid, || {
        act();
        Ok(())
    });
}
