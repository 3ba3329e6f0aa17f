//! Who steers the master, through the control socket: one request each, which is answered and
//! logged with who asked, whether it was granted or refused.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::ports::{about, described};
use super::visitors::Visitors;
use super::{Ready, Runtime};
use crate::config::{self, Kind};
use crate::control::{Answer, Request, SOCKET, Target};
use crate::errors::describe_error;
use crate::log::{About, Log, Severity};
use crate::policy::{Event, Limiter, Service, ServiceId, Time};
use crate::sys::local::{self, Access, Carries, Peer};
use crate::sys::poll::{Interest, Poll};
use crate::sys::privilege;

/// One who was let in, and has not asked yet.
#[derive(Debug)]
pub(super) struct Operator {
    connection: OwnedFd,
    peer: Peer,
}

impl AsFd for Operator {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// All who want to steer.
#[derive(Debug)]
pub(super) struct Operators {
    pub(super) visitors: Visitors<Operator>,
    /// Whoever is refused does not fill the log.
    limiter: Limiter,
}

impl Default for Operators {
    fn default() -> Self {
        Self {
            visitors: Visitors::new(Ready::ControlDoor, Ready::Operator),
            limiter: Limiter::default(),
        }
    }
}

impl Operators {
    /// Opens the socket, for this user alone.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(&mut self, poll: &Poll) -> anyhow::Result<()> {
        let access = Access { group: None };
        self.visitors
            .open(Path::new(SOCKET), Carries::Messages, access, poll)
            .with_context(|| format!("no control socket: {SOCKET}"))
    }

    /// Says that somebody could not be served who came to the master itself.
    pub(super) fn complain(&mut self, now: Time, log: &mut Log, error: &io::Error) {
        let reason = describe_error(error);
        self.warn(
            now,
            log,
            About::default(),
            format_args!("cannot serve the status or the control socket: {reason}"),
        );
    }

    fn warn(&mut self, now: Time, log: &mut Log, about: About<'_>, text: impl Display) {
        let Some(suppressed) = self.limiter.allow(now) else {
            return;
        };
        log.write_about(Severity::Warning, about, text);
        if suppressed > 0 {
            log.warning(format_args!(
                "control socket: {suppressed} more such lines were not logged"
            ));
        }
    }
}

/// What came of a request.
struct Outcome {
    /// What was to be done, in words.
    what: String,
    /// And to whom.
    service: Option<Arc<config::Service>>,
    answer: Answer,
}

impl Outcome {
    /// Of what is about no service, as far as we know.
    fn new(what: impl Into<String>, answer: Answer) -> Self {
        Self {
            what: what.into(),
            service: None,
            answer,
        }
    }
}

impl Runtime {
    pub(super) fn let_operators_in(&mut self, now: Time) {
        loop {
            let let_in = match self.operators.visitors.let_in(now, &self.poll) {
                Ok(None) => return,
                Ok(Some(connection)) => self.greet(now, connection),
                Err(error) => Err(error),
            };
            if let Err(error) = let_in {
                return self.operators.complain(now, &mut self.log, &error);
            }
        }
    }

    /// Lets root and our own user ask. The socket's mode keeps others out; whoever changes that
    /// does not change this.
    fn greet(&mut self, now: Time, connection: OwnedFd) -> io::Result<()> {
        let peer = Peer::of(connection.as_fd())?;
        if peer.uid != 0 && peer.uid != privilege::user().0 {
            // What was said already would have the answer lost; who is refused need not hear of it.
            let _ = local::receive(connection.as_fd(), &mut [0]);
            let _ = local::send_some(connection.as_fd(), &Answer::Forbidden.encode());
            self.tell(now, peer, &Outcome::new("a request", Answer::Forbidden));
            return Ok(());
        }
        let operator = Operator { connection, peer };
        let visitors = &mut self.operators.visitors;
        visitors.keep(now, operator, Interest::Readable, &self.poll)
    }

    /// Takes an operator's request, answers it and is done with them.
    pub(super) fn hear_operator(&mut self, now: Time, at: usize) {
        let operator = self.operators.visitors.remove(at, &self.poll);
        let Some(Operator { connection, peer }) = operator else {
            return;
        };
        let mut message = [0; Request::SIZE + 1];
        let length = match local::receive(connection.as_fd(), &mut message) {
            Ok(Some(length)) if length > 0 => length,
            // They have thought better of it.
            _ => return,
        };
        let request = message.get(..length).and_then(Request::decode);
        let outcome = match request {
            Some(request) => self.obey(now, request),
            None => Outcome::new("a request", Answer::Malformed),
        };
        // Who has gone sees in the status what came of it.
        let _ = local::send_some(connection.as_fd(), &outcome.answer.encode());
        self.tell(now, peer, &outcome);
    }

    /// Does what is asked, unless it makes no sense.
    fn obey(&mut self, now: Time, request: Request) -> Outcome {
        let (verb, event): (_, fn(ServiceId) -> Event) = match request {
            Request::Pause(_) => ("pause", |service| Event::Pause { service }),
            Request::Resume(_) => ("resume", |service| Event::Resume { service }),
            Request::Replace(_) => ("reload", |service| Event::Replace { service }),
            Request::Wake(_) => ("wake up", |service| Event::Wake { service }),
            Request::Verbose(verbose) => {
                let level = if verbose { "verbose" } else { "quiet" };
                self.step(now, Event::Verbose(verbose));
                self.readers.renew();
                return Outcome::new(format!("log level {level}"), Answer::Done);
            }
        };
        let found = request.target().and_then(|target| self.find(target));
        let Some((id, service)) = found else {
            return Outcome::new(format!("{verb} a service"), Answer::Unknown);
        };
        let outcome = |answer| Outcome {
            what: format!("{verb} {}", described(service.config())),
            service: Some(service.config().clone()),
            answer,
        };
        let refused = match request {
            Request::Wake(_) => cannot_wake(service),
            _ => None,
        };
        if let Some(answer) = refused {
            return outcome(answer);
        }
        let done = outcome(Answer::Done);
        self.step(now, event(id));
        self.readers.renew();
        done
    }

    /// The service that is meant, if it is still the one at that place.
    fn find(&self, target: Target) -> Option<(ServiceId, &Service)> {
        let id = ServiceId::from_index(target.place as usize);
        let service = self.table.service(id).filter(|s| !s.removed())?;
        let (kind, canonical) = service.config().identity();
        (Target::new(target.place, kind, canonical) == target).then_some((id, service))
    }

    fn tell(&mut self, now: Time, peer: Peer, outcome: &Outcome) {
        let Peer { uid, pid } = peer;
        let Outcome { what, service, .. } = outcome;
        let about = service.as_deref().map(about).unwrap_or_default();
        match outcome.answer.refusal() {
            None => {
                let text = format!("{what}: done, for uid {uid} pid {pid}");
                self.log.write_about(Severity::Info, about, text);
            }
            Some(why) => {
                let text = format!("{what}: refused to uid {uid} pid {pid}: {why}");
                self.operators.warn(now, &mut self.log, about, text);
            }
        }
    }
}

/// Why a service cannot be woken up, if it cannot.
fn cannot_wake(service: &Service) -> Option<Answer> {
    let answers = [
        (service.paused(), Answer::Paused),
        (service.throttled(), Answer::Throttled),
        (service.config().kind == Kind::UnixDgram, Answer::Datagrams),
    ];
    let mut answers = answers.into_iter();
    answers.find_map(|(is_so, answer)| is_so.then_some(answer))
}
