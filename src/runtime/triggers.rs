//! Wake-ups under way: connections that stay open until the service has closed them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::Ready;
use super::ports::{about, described};
use crate::config::{Endpoint, Kind, Service, User};
use crate::errors::describe_error;
use crate::log::{Log, Severity};
use crate::policy::Time;
use crate::sys::poll::Poll;
use crate::sys::privilege;
use crate::sys::trigger::{self, Progress, Trigger};

/// A service may take this long to close the connection (Postfix, `unix_trigger.c`).
const PATIENCE: Duration = Duration::from_secs(101);
/// More wake-ups than this cannot be under way.
const MAX: usize = 4096;

/// A wake-up that came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    service: Arc<Service>,
    why: String,
}

impl Failed {
    fn new(service: &Arc<Service>, error: &io::Error) -> Self {
        Self {
            service: service.clone(),
            why: format!("cannot be woken up: {}", describe_error(error)),
        }
    }

    pub(super) fn log(&self, log: &mut Log) {
        let Self { service, why } = self;
        let text = format!("{}: {why}", described(service));
        log.write_about(Severity::Warning, about(service), text);
    }
}

#[derive(Debug, Default)]
pub(super) struct Triggers {
    running: BTreeMap<usize, (Trigger, Arc<Service>)>,
    /// In the order in which they began, which is the order in which patience ends.
    deadlines: VecDeque<(Time, usize)>,
    next: usize,
}

impl Triggers {
    /// Wakes the service up.
    ///
    /// # Errors
    /// Why that could not begin.
    pub(super) fn start(
        &mut self,
        now: Time,
        service: &Arc<Service>,
        owner: User,
        poll: &Poll,
    ) -> Result<(), Failed> {
        let started = match (&service.endpoint, service.kind) {
            _ if self.running.len() >= MAX => Err(io::ErrorKind::QuotaExceeded.into()),
            (Endpoint::Path(path), Kind::Fifo) => {
                let User { uid, gid } = owner;
                privilege::as_user(uid, gid, || trigger::fifo(path)).map(|()| None)
            }
            (Endpoint::Path(_), Kind::UnixDgram) => Err(io::ErrorKind::Unsupported.into()),
            (Endpoint::Path(path), kind) => Trigger::unix(path, kind == Kind::Pass).map(Some),
            (Endpoint::Inet(addresses), _) => Trigger::inet(reachable(addresses[0])).map(Some),
        };
        let added = started.and_then(|trigger| match trigger {
            Some(trigger) => self.add(now, trigger, service, poll),
            None => Ok(()),
        });
        added.map_err(|error| Failed::new(service, &error))
    }

    fn add(
        &mut self,
        now: Time,
        trigger: Trigger,
        service: &Arc<Service>,
        poll: &Poll,
    ) -> io::Result<()> {
        let at = self.next;
        if let Progress::Waiting(interest) = trigger.progress() {
            poll.add(trigger.as_fd(), Ready::Trigger(at).key(), interest)?;
        }
        self.next = self.next.wrapping_add(1) & (usize::MAX >> 2);
        self.running.insert(at, (trigger, service.clone()));
        self.deadlines.push_back((now + PATIENCE, at));
        Ok(())
    }

    /// Goes on with a wake-up whose descriptor became ready.
    ///
    /// # Errors
    /// Why it came to nothing.
    pub(super) fn ready(&mut self, at: usize, poll: &Poll) -> Result<(), Failed> {
        let Some((trigger, service)) = self.running.get_mut(&at) else {
            return Ok(());
        };
        let progress = trigger.ready().and_then(|progress| match progress {
            Progress::Waiting(interest) => {
                let key = Ready::Trigger(at).key();
                poll.modify(trigger.as_fd(), key, interest).map(|()| false)
            }
            Progress::Done => Ok(true),
        });
        let failed = progress
            .as_ref()
            .err()
            .map(|error| Failed::new(service, error));
        if !matches!(progress, Ok(false)) {
            self.finish(at, poll);
        }
        failed.map_or(Ok(()), Err)
    }

    fn finish(&mut self, at: usize, poll: &Poll) -> Option<Arc<Service>> {
        let (trigger, service) = self.running.remove(&at)?;
        let _ = poll.remove(&trigger);
        Some(service)
    }

    /// When patience ends next.
    pub(super) fn next_deadline(&mut self) -> Option<Time> {
        while let Some((deadline, at)) = self.deadlines.front() {
            if self.running.contains_key(at) {
                return Some(*deadline);
            }
            self.deadlines.pop_front();
        }
        None
    }

    /// Gives up the wake-ups for which patience has ended, and says which.
    pub(super) fn expire(&mut self, now: Time, poll: &Poll) -> Vec<Failed> {
        let mut given_up = Vec::new();
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let at = self.deadlines.pop_front().map(|(_, at)| at);
            let service = at.and_then(|at| self.finish(at, poll));
            let seconds = PATIENCE.as_secs();
            let why = format!("wake-up not answered within {seconds} seconds");
            given_up.extend(service.map(|service| Failed { service, why }));
        }
        given_up
    }
}

/// An address that reaches a listener on `address`: a wildcard is reached through the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
