//! What the services have of the system: listeners, status channels, programs ready to run.
//! They sit beside the policy's table, at the same places.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::slice;
use std::sync::Arc;

use super::Ready;
use crate::config::{Endpoint, RunOptions, Service};
use crate::log::reason;
use crate::policy::{Plan, ServiceId};
use crate::sys::channel::{More, Record, StatusChannel};
use crate::sys::listen;
use crate::sys::poll::{Interest, Poll};
use crate::sys::spawn::{Descriptors, Program};

/// The listeners of one service. Most have one, which needs no memory of its own: small pieces that
/// stay, among those of a configuration that goes, keep its pages from being given back.
#[derive(Debug)]
enum Listeners {
    One(OwnedFd),
    Many(Vec<OwnedFd>),
}

impl Listeners {
    fn into_vec(self) -> Vec<OwnedFd> {
        match self {
            Self::One(listener) => vec![listener],
            Self::Many(listeners) => listeners,
        }
    }
}

impl Default for Listeners {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<Vec<OwnedFd>> for Listeners {
    fn from(mut listeners: Vec<OwnedFd>) -> Self {
        match (listeners.pop(), listeners.is_empty()) {
            (Some(listener), true) => Self::One(listener),
            (last, _) => {
                listeners.extend(last);
                Self::Many(listeners)
            }
        }
    }
}

impl Deref for Listeners {
    type Target = [OwnedFd];

    fn deref(&self) -> &[OwnedFd] {
        match self {
            Self::One(listener) => slice::from_ref(listener),
            Self::Many(listeners) => listeners,
        }
    }
}

/// One service's share.
#[derive(Debug)]
struct Port {
    service: Arc<Service>,
    /// In the order of the endpoint's addresses.
    listeners: Listeners,
    /// Made when the first child needs it.
    status: Option<StatusChannel>,
    /// Its reports wait for more to come, and the poller does not tell of them meanwhile.
    deferred: bool,
    /// For calm and for stress, made when first needed.
    programs: [Option<Box<Program>>; 2],
    watched: bool,
}

impl Port {
    fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            listeners: Listeners::default(),
            status: None,
            deferred: false,
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
            for listener in self.listeners.iter() {
                // One that could not be added was complained about then.
                let _ = poll.remove(listener);
            }
        }
    }

    /// Closes the listeners that were handed on: their sockets live on under other descriptors.
    fn give_up(&mut self, id: ServiceId, handed_on: &HashSet<(ServiceId, SocketAddr)>) {
        let Endpoint::Inet(addresses) = &self.service.endpoint else {
            return;
        };
        let listeners = std::mem::take(&mut self.listeners).into_vec();
        let left = listeners
            .into_iter()
            .zip(addresses)
            .filter(|(_, address)| !handed_on.contains(&(id, **address)));
        let left: Vec<_> = left.map(|(listener, _)| listener).collect();
        self.listeners = left.into();
    }

    fn drop_status(&mut self, poll: &Poll) {
        if let Some(status) = self.status.take() {
            let _ = poll.remove(&status);
        }
    }

    /// Has the poller tell of reports, or not.
    fn set_deferred(&mut self, id: ServiceId, poll: &Poll, deferred: bool) -> io::Result<()> {
        let interest = match deferred {
            true => Interest::Nothing,
            false => Interest::Readable,
        };
        if let Some(status) = &self.status {
            poll.modify(status.as_fd(), Ready::Status(id).key(), interest)?;
        }
        self.deferred = deferred;
        Ok(())
    }

    /// The listeners by address.
    fn addresses(&self) -> impl Iterator<Item = (SocketAddr, &OwnedFd)> {
        let addresses = self.service.endpoint.addresses();
        addresses.iter().copied().zip(self.listeners.iter())
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

    /// All TCP listeners by service and address.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (ServiceId, SocketAddr, &OwnedFd)> {
        let places = self.0.iter().enumerate();
        let ports = places.filter_map(|(index, port)| Some((index, port.as_ref()?)));
        ports.flat_map(|(index, port)| {
            let id = ServiceId::from_index(index);
            let listeners = port.addresses();
            listeners.map(move |(address, fd)| (id, address, fd))
        })
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

    /// Lets the service's reports wait for more to come. False if that is not possible, or if they
    /// wait already and the poller speaks of something else.
    pub(super) fn defer_reports(&mut self, id: ServiceId, poll: &Poll) -> bool {
        let port = self.get_mut(id).filter(|port| !port.deferred);
        port.is_some_and(|port| port.set_deferred(id, poll, true).is_ok())
    }

    /// Ends that wait.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn expect_reports(&mut self, id: ServiceId, poll: &Poll) -> io::Result<()> {
        let port = self.get_mut(id);
        port.map_or(Ok(()), |port| port.set_deferred(id, poll, false))
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
            *program = Some(Box::new(new_program(&port.service, run, stress)?));
        }
        let program = program.as_deref().ok_or(io::ErrorKind::NotFound)?;
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

    /// Puts a plan's services and the listeners that were opened for them into their places. What
    /// the plan removes is closed when the policy says so.
    pub(super) fn adopt(&mut self, plan: &Plan, kept: Kept, poll: &Poll) -> Adopted {
        self.make_places(plan);
        let Kept {
            listeners,
            handed_on,
        } = kept;
        for &id in &plan.removed {
            if let Some(port) = self.get_mut(id) {
                port.unwatch(poll);
                port.give_up(id, &handed_on);
            }
        }
        let adopted = self.replace_listeners(listeners, &handed_on, poll);
        for entry in &plan.entries {
            if let Some(port) = self.get_mut(entry.id) {
                port.service = entry.service.clone();
                port.programs = [None, None];
            }
        }
        adopted
    }

    fn make_places(&mut self, plan: &Plan) {
        for entry in &plan.entries {
            let at = entry.id.index();
            if self.0.len() <= at {
                self.0.resize_with(at + 1, || None);
            }
            self.0[at].get_or_insert_with(|| Port::new(entry.service.clone()));
        }
    }

    fn replace_listeners(
        &mut self,
        opened: Vec<(ServiceId, Vec<OwnedFd>)>,
        handed_on: &HashSet<(ServiceId, SocketAddr)>,
        poll: &Poll,
    ) -> Adopted {
        let mut adopted = Adopted::default();
        for (id, listeners) in opened {
            if let Some(port) = self.get_mut(id) {
                if port.watched {
                    adopted.unwatched.push(id);
                }
                port.unwatch(poll);
                port.give_up(id, handed_on);
                let former = std::mem::replace(&mut port.listeners, listeners.into());
                adopted.dropped.extend(former.into_vec());
            }
        }
        adopted
    }
}

/// What was opened for a plan that is carried out.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) listeners: Vec<(ServiceId, Vec<OwnedFd>)>,
    /// The sockets that live on in these listeners, by who had them before.
    pub(super) handed_on: HashSet<(ServiceId, SocketAddr)>,
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
