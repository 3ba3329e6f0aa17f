//! Wake-ups under way: connections that stay open until the service has closed them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::services::{about, described};
use super::token::Token;
use super::upgrade::Saving;
use crate::config::{Endpoint, Kind, Service, User};
use crate::errors::describe_error;
use crate::log::{Log, Severity};
use crate::policy::Time;
use crate::sys::poll::{Interest, Poll};
use crate::sys::privilege;
use crate::sys::trigger::Trigger;
use crate::upgrade::{WakeupState, WakeupStep};

/// How long a service may take to close the connection (Postfix, `unix_trigger.c`).
const TIMEOUT: Duration = Duration::from_secs(101);
/// Wake-ups that can be under way at a time.
const MAX: usize = 4096;

/// All wake-ups under way.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    running: BTreeMap<usize, (Trigger, Arc<Service>)>,
    /// In the order of their starts, which is that of their ends.
    deadlines: VecDeque<(Time, usize)>,
    next: usize,
}

impl Wakeups {
    /// Wakes the service up, whose path belongs to `owner`, if it is not root's.
    pub(super) fn start(
        &mut self,
        now: Time,
        service: &Arc<Service>,
        owner: Option<User>,
        poll: &Poll,
        log: &mut Log,
    ) {
        if self.hangs(service) {
            return;
        }
        let trigger = self.trigger(service, owner);
        let until = Some(now + TIMEOUT);
        if let Err(error) = trigger.and_then(|trigger| self.add(until, trigger, service, poll)) {
            failed(service, &error, log);
        }
    }

    /// Whether a process still wakes the service up, which could last for ever.
    fn hangs(&self, service: &Service) -> bool {
        self.running.values().any(|(trigger, other)| {
            matches!(trigger, Trigger::Process(_)) && other.endpoint == service.endpoint
        })
    }

    /// The beginning of a wake-up: as the owner of the path, so that a link in its place leads to
    /// nothing that only root may use.
    fn trigger(&self, service: &Service, owner: Option<User>) -> io::Result<Trigger> {
        if self.running.len() >= MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let start = || match (&service.endpoint, service.kind) {
            (Endpoint::Path(path), Kind::Fifo) => Trigger::fifo(path, describe_error),
            (Endpoint::Path(path), Kind::Pass) => Trigger::pass(path, TIMEOUT, describe_error),
            (Endpoint::Path(_), Kind::UnixDgram) => Err(io::ErrorKind::Unsupported.into()),
            (Endpoint::Path(path), _) => Trigger::unix(path),
            (Endpoint::Inet(addresses), _) => Trigger::inet(reachable(addresses[0])),
        };
        match owner {
            Some(User { uid, gid }) => privilege::as_user(uid, gid, start),
            None => start(),
        }
    }

    fn add(
        &mut self,
        until: Option<Time>,
        trigger: Trigger,
        service: &Arc<Service>,
        poll: &Poll,
    ) -> io::Result<()> {
        let at = self.next;
        let key = Token::Wakeup(at).key();
        poll.add(trigger.as_fd(), key, trigger.interest())?;
        self.next = (at + 1) % Token::INDEX_MAX;
        self.running.insert(at, (trigger, service.clone()));
        self.deadlines.extend(until.map(|until| (until, at)));
        Ok(())
    }

    /// All of them, in the order of their ends, for the next version of the program.
    pub(super) fn save(&self, saving: &mut Saving) -> Vec<WakeupState> {
        let ends: HashMap<_, _> = self
            .deadlines
            .iter()
            .map(|(until, at)| (*at, *until))
            .collect();
        let running = self.running.iter();
        let running = running.map(|(at, (trigger, service))| WakeupState {
            fd: saving.fd(trigger),
            config: saving.config(service),
            step: match (trigger, trigger.interest()) {
                (Trigger::Process(_), _) => WakeupStep::Process,
                (_, Interest::Writable) => WakeupStep::Connecting,
                (_, Interest::Hangup) => WakeupStep::Local,
                (_, _) => WakeupStep::Remote,
            },
            until: ends.get(at).copied(),
        });
        let mut all: Vec<_> = running.collect();
        all.sort_by_key(|wakeup| wakeup.until);
        all
    }

    /// Goes on with a wake-up that a former program has begun.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn resume(
        &mut self,
        state: &WakeupState,
        fd: OwnedFd,
        service: &Arc<Service>,
        poll: &Poll,
    ) -> io::Result<()> {
        let connection = match state.step {
            WakeupStep::Connecting => Some(Interest::Writable),
            WakeupStep::Local => Some(Interest::Hangup),
            WakeupStep::Remote => Some(Interest::Readable),
            WakeupStep::Process => None,
        };
        self.add(state.until, Trigger::resume(fd, connection), service, poll)
    }

    /// Goes on with a wake-up whose descriptor became ready.
    pub(super) fn ready(&mut self, at: usize, poll: &Poll, log: &mut Log) {
        let Some((trigger, service)) = self.running.get_mut(&at) else {
            return;
        };
        let goes_on = trigger.ready().and_then(|waits| {
            if waits {
                let key = Token::Wakeup(at).key();
                poll.modify(trigger.as_fd(), key, trigger.interest())?;
            }
            Ok(waits)
        });
        if let Err(error) = &goes_on {
            failed(service, error, log);
        }
        if !matches!(goes_on, Ok(true)) {
            self.finish(at, poll);
        }
    }

    fn finish(&mut self, at: usize, poll: &Poll) {
        if let Some((trigger, _)) = self.running.remove(&at) {
            let _ = poll.remove(&trigger);
        }
    }

    /// When the next wake-up has taken too long.
    pub(super) fn next_deadline(&mut self) -> Option<Time> {
        while let Some((deadline, at)) = self.deadlines.front() {
            if self.running.contains_key(at) {
                return Some(*deadline);
            }
            self.deadlines.pop_front();
        }
        None
    }

    /// Gives up the wake-ups that have taken too long.
    pub(super) fn expire(&mut self, now: Time, poll: &Poll, log: &mut Log) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Some((_, at)) = self.deadlines.pop_front() else {
                return;
            };
            let Some((trigger, service)) = self.running.get(&at) else {
                continue;
            };
            let (name, seconds) = (described(service), TIMEOUT.as_secs());
            let text = format!("{name}: wake-up not answered within {seconds} seconds");
            log.write_about(Severity::Warning, about(service), text);
            // A process ends by itself, and if it hangs, it is not left for another.
            if matches!(trigger, Trigger::Connection(_)) {
                self.finish(at, poll);
            }
        }
    }
}

pub(super) fn failed(service: &Service, error: &io::Error, log: &mut Log) {
    let (name, reason) = (described(service), describe_error(error));
    let text = format!("{name}: cannot be woken up: {reason}");
    log.write_about(Severity::Warning, about(service), text);
}

/// An address that reaches a listener on `address`: the wildcard is reached through the loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
