//! What the services have of the system: listeners, status channels, programs ready to run.
//! They sit beside the policy's table, at the same places.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Ready;
use crate::config::{Config, Endpoint, Kind, RunOptions, Service, User};
use crate::log::reason;
use crate::policy::{Entry, Plan, ServiceId};
use crate::sys::channel::{More, Record, StatusChannel};
use crate::sys::listen::{self, Aside, PathKind};
use crate::sys::poll::{Interest, Poll};
use crate::sys::privilege;
use crate::sys::spawn::{Descriptors, Program};

/// So many endpoints that cannot be opened are named one by one.
const ERRORS_MAX: usize = 10;

/// One service's share.
#[derive(Debug)]
struct Port {
    service: Arc<Service>,
    /// In the order of the endpoint's addresses.
    listeners: Vec<OwnedFd>,
    /// Made when the first child needs it.
    status: Option<StatusChannel>,
    /// For calm and for stress, made when first needed.
    programs: [Option<Program>; 2],
    watched: bool,
}

impl Port {
    fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            listeners: Vec::new(),
            status: None,
            programs: [None, None],
            watched: false,
        }
    }

    fn watch(&mut self, id: ServiceId, poll: &Poll) -> io::Result<()> {
        self.watched = true;
        let key = Ready::Listener(id).key();
        let mut listeners = self.listeners.iter();
        listeners.try_for_each(|fd| poll.add(fd.as_fd(), key, Interest::Readable))
    }

    fn unwatch(&mut self, poll: &Poll) {
        if std::mem::take(&mut self.watched) {
            for listener in &self.listeners {
                // One that could not be added was complained about then.
                let _ = poll.remove(listener);
            }
        }
    }

    /// Closes the listeners at addresses that are still in use, by this service or another: there
    /// the socket lives on under another descriptor.
    fn give_up(&mut self, in_use: &HashSet<SocketAddr>) {
        let Endpoint::Inet(addresses) = &self.service.endpoint else {
            return;
        };
        let listeners = std::mem::take(&mut self.listeners).into_iter();
        let dropped = listeners
            .zip(addresses)
            .filter(|(_, a)| !in_use.contains(a));
        self.listeners = dropped.map(|(listener, _)| listener).collect();
    }

    fn drop_status(&mut self, poll: &Poll) {
        if let Some(status) = self.status.take() {
            let _ = poll.remove(&status);
        }
    }

    /// The listeners by address.
    fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &OwnedFd)> {
        let addresses: &[SocketAddr] = match &self.service.endpoint {
            Endpoint::Inet(addresses) => addresses,
            Endpoint::Path(_) => &[],
        };
        addresses.iter().copied().zip(&self.listeners)
    }
}

/// All services' shares, by place.
#[derive(Debug, Default)]
pub(super) struct Ports(Vec<Option<Port>>);

impl Ports {
    fn get(&self, id: ServiceId) -> Option<&Port> {
        self.0.get(id.index())?.as_ref()
    }

    fn get_mut(&mut self, id: ServiceId) -> Option<&mut Port> {
        self.0.get_mut(id.index())?.as_mut()
    }

    pub(super) fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        Some(&self.get(id)?.service)
    }

    /// Has the poller report connections to the service.
    ///
    /// # Errors
    /// The system's: its limit on watched descriptors, say.
    pub(super) fn watch(&mut self, id: ServiceId, poll: &Poll) -> io::Result<()> {
        self.get_mut(id).map_or(Ok(()), |port| port.watch(id, poll))
    }

    pub(super) fn unwatch(&mut self, id: ServiceId, poll: &Poll) {
        if let Some(port) = self.get_mut(id) {
            port.unwatch(poll);
        }
    }

    /// Takes the status channel from the service's children: they find its other end closed.
    pub(super) fn drop_status(&mut self, id: ServiceId, poll: &Poll) {
        if let Some(port) = self.get_mut(id) {
            port.drop_status(poll);
        }
    }

    /// Appends a batch of the service's reports, and tells whether there may be more.
    pub(super) fn read_status(&self, id: ServiceId, records: &mut Vec<Record>) -> io::Result<More> {
        match self.get(id).and_then(|port| port.status.as_ref()) {
            Some(status) => status.read(records),
            None => Ok(More::No),
        }
    }

    /// Whether a child has shut the channel for all who share it, so that the next child would
    /// take that for its own dismissal.
    pub(super) fn status_is_shut(&self, id: ServiceId) -> bool {
        let status = self.get(id).and_then(|port| port.status.as_ref());
        status.is_some_and(StatusChannel::is_shut)
    }

    /// Closes all that the service has. Children that do not leave keep its listeners open, so
    /// these are shut down: clients are refused, and do not wait for nobody.
    pub(super) fn close(&mut self, id: ServiceId, poll: &Poll) {
        let port = self.0.get_mut(id.index()).and_then(Option::take);
        if let Some(mut port) = port {
            port.unwatch(poll);
            port.drop_status(poll);
            port.listeners.iter().for_each(listen::shut_down);
        }
    }

    /// What a child of the service runs and gets.
    pub(super) fn ready_to_spawn(
        &mut self,
        id: ServiceId,
        poll: &Poll,
        run: RunOptions,
        stress: bool,
    ) -> io::Result<(&Program, Descriptors<'_>)> {
        let port = self.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        let status = match port.status.take() {
            Some(status) => status,
            None => {
                let status = StatusChannel::new()?;
                let key = Ready::Status(id).key();
                poll.add(status.as_fd(), key, Interest::Readable)?;
                status
            }
        };
        let status = port.status.insert(status);
        let program = &mut port.programs[usize::from(stress)];
        if program.is_none() {
            *program = Some(new_program(&port.service, run, stress)?);
        }
        let program = program.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let descriptors = Descriptors {
            status: status.children_end(),
            listeners: &port.listeners,
        };
        Ok((program, descriptors))
    }

    /// That the service's program could not be run, and where it is named.
    pub(super) fn exec_failed(&self, id: ServiceId, error: &io::Error) -> String {
        self.service(id).map_or_else(String::new, |service| {
            format!(
                "exec {}: {} -- see line {} of master.cf: {}",
                service.path.display(),
                reason(error),
                service.line,
                described(service)
            )
        })
    }

    /// Opens all listeners that a plan needs and that are not open yet. Addresses that stay in use
    /// keep their sockets, whatever service they belong to, so that no client is refused.
    ///
    /// # Errors
    /// All endpoints that could not be opened, each with the reason; nothing has changed then.
    pub(super) fn open(&self, plan: &Plan, config: &Config) -> Result<Opened, Vec<String>> {
        let mut opened = Opened::default();
        opened.owner = config.parameters.mail_owner.clone();
        opened.queue = config.parameters.queue_directory.clone();
        opened.window = config.parameters.inet_windowsize;
        let shared = Shared::new(self, plan);
        let mut errors = Vec::new();
        for entry in &plan.entries {
            let current = self.get(entry.id).filter(|_| entry.known);
            if current.is_some_and(|port| port.service.endpoint == entry.service.endpoint) {
                continue;
            }
            let listeners = match &entry.service.endpoint {
                Endpoint::Inet(addresses) => {
                    let open = |a: &SocketAddr| opened.inet(entry.id, *a, &entry.service, &shared);
                    collect(addresses.iter().map(open))
                }
                Endpoint::Path(path) => {
                    let replaces = shared.paths.contains(path);
                    opened
                        .path(path, &entry.service, replaces)
                        .map(|fd| vec![fd])
                }
            };
            match listeners {
                Ok(listeners) => opened.listeners.push((entry.id, listeners)),
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(opened),
            false => Err(at_most(ERRORS_MAX, errors)),
        }
    }

    /// Puts a plan's listeners and services into their places. What the plan removes is closed
    /// when the policy says so.
    pub(super) fn adopt(&mut self, plan: &Plan, opened: Opened, poll: &Poll) -> Adopted {
        for entry in &plan.entries {
            let at = entry.id.index();
            if self.0.len() <= at {
                self.0.resize_with(at + 1, || None);
            }
            let port = self.0[at].get_or_insert_with(|| Port::new(entry.service.clone()));
            port.programs = [None, None];
        }
        let in_use: HashSet<SocketAddr> = plan.entries.iter().flat_map(addresses).collect();
        for &id in &plan.removed {
            if let Some(port) = self.get_mut(id) {
                port.unwatch(poll);
                port.give_up(&in_use);
            }
        }
        let mut adopted = Adopted::default();
        for (id, listeners) in opened.keep() {
            if let Some(port) = self.get_mut(id) {
                if port.watched {
                    adopted.unwatched.push(id);
                }
                port.unwatch(poll);
                port.give_up(&in_use);
                adopted.dropped.append(&mut port.listeners);
                port.listeners = listeners;
            }
        }
        for entry in &plan.entries {
            if let Some(port) = self.get_mut(entry.id) {
                port.service = entry.service.clone();
            }
        }
        adopted
    }
}

/// What is left to do once a plan is carried out.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    /// Services to watch again.
    pub(super) unwatched: Vec<ServiceId>,
    /// Listeners that nobody needs any more. Children may hold them for a while, so they are to be
    /// [shut down](listen::shut_down), once the children have been told to leave.
    pub(super) dropped: Vec<OwnedFd>,
}

fn addresses(entry: &Entry) -> Vec<SocketAddr> {
    match &entry.service.endpoint {
        Endpoint::Inet(addresses) => addresses.clone(),
        Endpoint::Path(_) => Vec::new(),
    }
}

fn new_program(service: &Service, run: RunOptions, stress: bool) -> io::Result<Program> {
    let argv = service.argv(run, stress).into_iter();
    let argv = argv.map(|argument| CString::new(argument.into_vec()));
    let argv = argv.collect::<Result<_, _>>()?;
    let path = CString::new(service.path.as_os_str().as_bytes())?;
    Ok(Program::new(path, argv))
}

/// How messages name a service.
pub(super) fn described(service: &Service) -> String {
    format!("service \"{}\" ({})", service.name, service.canonical)
}

/// One missing directory can be in the way of a thousand services.
fn at_most(limit: usize, mut errors: Vec<String>) -> Vec<String> {
    let more = errors.len().saturating_sub(limit);
    errors.truncate(limit);
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
    /// Who has an address, and its socket.
    sockets: HashMap<SocketAddr, (ServiceId, &'a OwnedFd)>,
    /// The addresses that services keep under the plan.
    kept: HashSet<(ServiceId, SocketAddr)>,
    /// The paths of services that the plan removes.
    paths: HashSet<PathBuf>,
}

impl<'a> Shared<'a> {
    fn new(ports: &'a Ports, plan: &Plan) -> Self {
        let open = ports.0.iter().enumerate().filter_map(|(index, port)| {
            let id = ServiceId::from_index(index);
            Some((id, port.as_ref()?))
        });
        let sockets = open.flat_map(|(id, port)| {
            port.addresses()
                .map(move |(address, fd)| (address, (id, fd)))
        });
        let known = plan.entries.iter().filter(|entry| entry.known);
        let kept = known.flat_map(|entry| {
            let addresses: &[SocketAddr] = match &entry.service.endpoint {
                Endpoint::Inet(addresses) => addresses,
                Endpoint::Path(_) => &[],
            };
            addresses.iter().map(|address| (entry.id, *address))
        });
        let removed = plan.removed.iter().filter_map(|&id| ports.service(id));
        let paths = removed.filter_map(|service| match &service.endpoint {
            Endpoint::Path(path) => Some(path.clone()),
            Endpoint::Inet(_) => None,
        });
        Self {
            sockets: sockets.collect(),
            kept: kept.collect(),
            paths: paths.collect(),
        }
    }

    /// The socket that `id` may have for this address: its own, or one that its holder gives up.
    fn socket(&self, id: ServiceId, address: SocketAddr) -> Option<&OwnedFd> {
        let &(holder, socket) = self.sockets.get(&address)?;
        let free = holder == id || !self.kept.contains(&(holder, address));
        free.then_some(socket)
    }
}

/// Listeners that were opened for a plan. Unless the plan is carried out, dropping this takes back
/// what was made in the file system.
#[derive(Debug, Default)]
pub(super) struct Opened {
    listeners: Vec<(ServiceId, Vec<OwnedFd>)>,
    owner: (String, User),
    queue: PathBuf,
    window: u32,
    created: Vec<PathBuf>,
    asides: Vec<Aside>,
}

impl Opened {
    fn inet(
        &self,
        id: ServiceId,
        address: SocketAddr,
        service: &Service,
        shared: &Shared<'_>,
    ) -> Result<OwnedFd, String> {
        let socket = match shared.socket(id, address) {
            Some(socket) => socket.try_clone(),
            None => listen::inet(address, service.backlog, self.window),
        };
        socket.map_err(|error| {
            let advice = inet_advice(&error, address);
            let (service, reason) = (described(service), reason(&error));
            format!("{service}: cannot listen on {address}: {reason}{advice}")
        })
    }

    fn path(&mut self, path: &Path, service: &Service, replaces: bool) -> Result<OwnedFd, String> {
        let kind = match service.kind {
            Kind::Fifo => PathKind::Fifo,
            Kind::UnixDgram => PathKind::Datagram,
            _ => PathKind::Stream,
        };
        let User { uid, gid } = self.owner.1;
        let made = privilege::as_user(uid, gid, || {
            let aside = match replaces {
                true => Aside::put(path)?,
                false => None,
            };
            Ok((listen::path(path, kind, service.backlog)?, aside))
        });
        match made {
            Ok((listener, aside)) => {
                self.created.push(path.to_owned());
                self.asides.extend(aside);
                Ok(listener)
            }
            Err(error) => {
                let advice = self.path_advice(&error, path);
                let (service, reason) = (described(service), reason(&error));
                let path = path.display();
                Err(format!(
                    "{service}: cannot listen on {path}: {reason}{advice}"
                ))
            }
        }
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
            io::ErrorKind::NotFound => {
                format!("; the directory {directory} is missing: \"postfix check\" makes it")
            }
            io::ErrorKind::PermissionDenied => {
                format!("; {directory} must belong to mail_owner: \"chown {owner} {directory}\"")
            }
            _ => String::new(),
        }
    }

    /// The plan is carried out: what was made stays, and what it replaced goes.
    fn keep(mut self) -> Vec<(ServiceId, Vec<OwnedFd>)> {
        self.created.clear();
        let asides = std::mem::take(&mut self.asides);
        self.as_owner(|| asides.into_iter().for_each(Aside::forget));
        std::mem::take(&mut self.listeners)
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

fn inet_advice(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!("; \"ss -ltnp sport = :{port}\" shows which program has it")
        }
        io::ErrorKind::AddrNotAvailable => {
            "; no network interface of this machine has that address".into()
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 are reserved for root".into(),
        _ => String::new(),
    }
}
