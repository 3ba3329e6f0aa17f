//! What the services have of the system: listeners, and programs ready to run.
//! They sit beside the policy's table, at the same places.

use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::slice;
use std::sync::Arc;

use super::Ready;
use crate::config::{Endpoint, RunOptions, Service};
use crate::errors::describe_error;
use crate::log::About;
use crate::policy::{Plan, ServiceId};
use crate::sys::handed::Address;
use crate::sys::listen::{self, Name};
use crate::sys::poll::{Interest, Poll};
use crate::sys::queues::Queues;
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
    /// Which file it was that a path named when its listener was made.
    name: Option<Name>,
    /// For calm and for stress, made when first needed.
    programs: [Option<Box<Program>>; 2],
    /// Connections are to be heard of.
    watched: bool,
    /// What the poller was last asked to report of the listeners, which are not in its set before.
    asked: Option<Interest>,
    /// It has reported a connection since, and need not be told that this was enough.
    reported: bool,
}

impl Port {
    fn new(service: Arc<Service>) -> Self {
        Self {
            service,
            listeners: Listeners::default(),
            name: None,
            programs: [None, None],
            watched: false,
            asked: None,
            reported: false,
        }
    }

    /// Most connections that are reported end the watch, so one is reported and no more until the
    /// poller is told again. While an ordered pool has children to `spare`, every client that comes
    /// is reported, and the poller need not be told anything, if the system counts those who wait.
    fn watch(&mut self, id: ServiceId, spare: bool, poll: &Poll) -> io::Result<()> {
        let counted = matches!(self.service.endpoint, Endpoint::Inet(_));
        let interest = match self.service.is_ordered() && spare && counted {
            true => Interest::Arrivals,
            false => Interest::ReadableOnce,
        };
        let asked = self.ask(id, poll, interest);
        self.watched = asked.is_ok();
        asked
    }

    /// Has the poller look at the listeners for this, from now on.
    fn ask(&mut self, id: ServiceId, poll: &Poll, interest: Interest) -> io::Result<()> {
        let key = Ready::Listener(id).key();
        self.reported = false;
        let known = self.asked.replace(interest).is_some();
        let asked = self.listeners.iter().try_for_each(|fd| match known {
            true => poll.modify(fd.as_fd(), key, interest),
            false => poll.add(fd.as_fd(), key, interest),
        });
        if asked.is_err() {
            self.forget(poll);
        }
        asked
    }

    /// Clients come to an ordered pool all the time: what is reported nevertheless finds nobody who
    /// wants it, and costs less than to tell the poller.
    fn unwatch(&mut self, poll: &Poll) {
        match self.reported || self.service.is_ordered() {
            true => self.watched = false,
            false => drop(self.forget(poll)),
        }
    }

    /// How many clients wait at its addresses, where the system tells.
    fn tcp_backlog(&self) -> Option<u32> {
        match self.service.endpoint {
            Endpoint::Path(_) => None,
            Endpoint::Inet(_) => self.listeners.iter().map(listen::waiting).sum(),
        }
    }

    /// Takes the listeners out of the poller's set; true if they were watched.
    fn forget(&mut self, poll: &Poll) -> bool {
        if self.asked.take().is_some() {
            for listener in self.listeners.iter() {
                // One that could not be added was complained about then.
                let _ = poll.remove(listener);
            }
        }
        std::mem::take(&mut self.watched)
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

    /// Whether clients find the service's listeners at this endpoint. They do not when it has
    /// others, or when somebody has removed their name or put something else in its place.
    pub(super) fn is_found_at(&self, id: ServiceId, endpoint: &Endpoint) -> bool {
        let port = self
            .get(id)
            .filter(|port| port.service.endpoint == *endpoint);
        port.is_some_and(|port| match endpoint {
            Endpoint::Path(path) => port.name.is_some() && port.name == Name::of(path),
            Endpoint::Inet(_) => true,
        })
    }

    pub(super) fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        Some(&self.get(id)?.service)
    }

    /// Whether the service's children accept when they are told to.
    pub(super) fn is_ordered(&self, id: ServiceId) -> bool {
        self.service(id).is_some_and(|s| s.is_ordered())
    }

    /// Whether what the service's children print is logged.
    pub(super) fn is_captured(&self, id: ServiceId) -> bool {
        self.service(id).is_some_and(|s| s.limits().capture_output)
    }

    /// How many connections wait on the service's listeners, which are ready: what TCP tells at
    /// once. None may be left, and where nobody tells, it is one.
    pub(super) fn waiting(&self, id: ServiceId) -> u32 {
        self.get(id).and_then(Port::tcp_backlog).unwrap_or(1)
    }

    /// How many clients wait in the queues of the service's listeners, where the system tells; of
    /// a path, it has told before.
    pub(super) fn backlog(&self, id: ServiceId, paths: &Queues) -> Option<u32> {
        let port = self.get(id)?;
        match port.service.endpoint {
            Endpoint::Path(_) => port.listeners.iter().map(|fd| paths.waiting(fd)).sum(),
            Endpoint::Inet(_) => port.tcp_backlog(),
        }
    }

    /// Has the poller report connections to the service.
    ///
    /// # Errors
    /// The system's: its limit on watched descriptors, say.
    pub(super) fn watch(&mut self, id: ServiceId, spare: bool, poll: &Poll) -> io::Result<()> {
        let port = self.get_mut(id);
        port.map_or(Ok(()), |port| port.watch(id, spare, poll))
    }

    /// Whether every connection is reported, and those that came before are not reported again.
    pub(super) fn tells_of_arrivals(&self, id: ServiceId) -> bool {
        self.get(id)
            .is_some_and(|port| port.asked == Some(Interest::Arrivals))
    }

    /// Has the poller report no arrivals until connections are to be heard of again.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn ignore_arrivals(&mut self, id: ServiceId, poll: &Poll) -> io::Result<()> {
        match self
            .get_mut(id)
            .filter(|port| port.asked == Some(Interest::Arrivals))
        {
            Some(port) => port.ask(id, poll, Interest::Nothing),
            None => Ok(()),
        }
    }

    /// The poller has reported a connection to the service.
    pub(super) fn connection_reported(&mut self, id: ServiceId) {
        if let Some(port) = self.get_mut(id) {
            port.reported = true;
        }
    }

    /// Whether the poller is to report connections.
    pub(super) fn is_watched(&self, id: ServiceId) -> bool {
        self.get(id).is_some_and(|port| port.watched)
    }

    pub(super) fn unwatch(&mut self, id: ServiceId, poll: &Poll) {
        if let Some(port) = self.get_mut(id) {
            port.unwatch(poll);
        }
    }

    /// Closes all that the service has. Children that do not leave keep its listeners open, so
    /// these are shut down: clients are refused, and do not wait for nobody.
    pub(super) fn close(&mut self, id: ServiceId, poll: &Poll) {
        let port = self.0.get_mut(id.index()).and_then(Option::take);
        if let Some(mut port) = port {
            port.forget(poll);
            port.listeners.iter().for_each(listen::shut_down);
        }
    }

    /// What a child of the service runs and gets.
    pub(super) fn ready_to_spawn<'a>(
        &'a mut self,
        id: ServiceId,
        run: RunOptions,
        stress: bool,
        status: BorrowedFd<'a>,
        output: Option<BorrowedFd<'a>>,
    ) -> io::Result<(&'a Program, Descriptors<'a>)> {
        let port = self.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
        let program = &mut port.programs[usize::from(stress)];
        if program.is_none() {
            *program = Some(Box::new(new_program(&port.service, run, stress)?));
        }
        let program = program.as_deref().ok_or(io::ErrorKind::NotFound)?;
        let descriptors = Descriptors {
            status,
            listeners: &port.listeners,
            output,
        };
        Ok((program, descriptors))
    }

    /// Puts a plan's services and the listeners that were opened for them into their places. What
    /// the plan removes is closed when the policy says so.
    pub(super) fn adopt(&mut self, plan: &Plan, kept: Kept, poll: &Poll) -> Adopted {
        self.make_places(plan);
        let Kept {
            listeners,
            handed_on,
            ..
        } = kept;
        for &id in &plan.removed {
            if let Some(port) = self.get_mut(id) {
                port.forget(poll);
                port.give_up(id, &handed_on);
            }
        }
        let mut adopted = self.replace_listeners(listeners, &handed_on, poll);
        for entry in &plan.entries {
            if let Some(port) = self.get_mut(entry.id) {
                // The two kinds are watched in different ways.
                let same = port.service.is_ordered() == entry.service.is_ordered();
                if !same && port.forget(poll) {
                    adopted.unwatched.push(entry.id);
                }
                port.service = entry.service.clone();
                port.programs = [None, None];
            }
        }
        adopted
    }

    fn make_places(&mut self, plan: &Plan) {
        let ids = plan.entries.iter().map(|entry| entry.id.index());
        let places = ids.max().map_or(0, |last| last + 1);
        if self.0.len() < places {
            self.0.resize_with(places, || None);
        }
        for entry in &plan.entries {
            self.0[entry.id.index()].get_or_insert_with(|| Port::new(entry.service.clone()));
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
                if port.forget(poll) {
                    adopted.unwatched.push(id);
                }
                port.give_up(id, handed_on);
                let former = std::mem::replace(&mut port.listeners, listeners.into());
                adopted.dropped.extend(former.into_vec());
                port.name = match &port.service.endpoint {
                    Endpoint::Path(path) => Name::of(path),
                    Endpoint::Inet(_) => None,
                };
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
    /// Those of the service manager's listeners that have found a service.
    pub(super) taken_over: Vec<Address>,
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

/// That the service's program could not be run, and where it is named.
pub(super) fn exec_failed(service: &Service, error: &io::Error, table: &Path) -> String {
    format!(
        "exec {}: {} -- see line {} of {}: {}",
        service.path.display(),
        describe_error(error),
        service.line,
        table.display(),
        described(service)
    )
}

/// That a message is about a service.
pub(super) fn about(service: &Service) -> About<'_> {
    About {
        service: Some((&service.name, service.kind.as_str())),
        child: None,
    }
}

/// How messages name a service.
pub(super) fn described(service: &Service) -> String {
    format!("service \"{}\" ({})", service.name, service.canonical)
}
