//! Operators' commands: one request each, which is answered, and logged with the process that has
//! sent it, whether it was granted or refused.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::socket::{SockType, UnixCredentials};

use super::admission::Admission;
use crate::config::{self, Kind};
use crate::control::{Answer, Request, SOCKET, Target};
use crate::log::Severity;
use crate::policy::{Event, Service, ServiceId, Time};
use crate::runtime::Runtime;
use crate::runtime::services::{about, described};
use crate::runtime::token::Token;
use crate::sys::channel::{Channel, Found};
use crate::sys::poll::{Interest, Poll};
use crate::sys::privilege;

/// An operator's program that has not sent its request yet.
#[derive(Debug)]
struct Operator {
    connection: Channel,
    peer: UnixCredentials,
}

impl AsFd for Operator {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Operator {
    fn answer(&self, answer: Answer) {
        // One that has gone sees in the status what was done.
        let _ = self.connection.send(&answer.encode());
    }
}

#[derive(Debug)]
pub(super) struct ControlSocket {
    operators: Admission<Operator>,
    /// Operators whose requests are being carried out.
    pending: Vec<(Operator, Outcome)>,
}

impl Default for ControlSocket {
    fn default() -> Self {
        Self {
            operators: Admission::new(Token::ControlListener, Token::ControlConnection),
            pending: Vec::new(),
        }
    }
}

impl ControlSocket {
    /// Opens the socket, for this user alone.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(&mut self, poll: &Poll) -> anyhow::Result<()> {
        self.operators
            .open(Path::new(SOCKET), SockType::SeqPacket, None, poll)
            .with_context(|| format!("no control socket: {SOCKET}"))
    }

    /// Whether operators wait for an answer.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.operators.next_deadline()
    }

    /// # Errors
    /// The poller's.
    pub(super) fn expire(&mut self, now: Time, poll: &Poll) -> io::Result<()> {
        self.operators.expire(now, poll)
    }
}

/// What came of a request.
#[derive(Debug)]
struct Outcome {
    /// What was to be done, in words.
    what: String,
    service: Option<Arc<config::Service>>,
    answer: Answer,
}

impl Outcome {
    /// Of a request that is about no service, or an unknown one.
    fn new(what: impl Into<String>, answer: Answer) -> Self {
        Self {
            what: what.into(),
            service: None,
            answer,
        }
    }
}

impl Runtime {
    /// Accepts operators' programs.
    pub(super) fn accept_operators(&mut self, now: Time) -> io::Result<()> {
        while let Some(connection) = self.admin.control.operators.accept(now, &self.poll)? {
            self.authorize(now, connection)?;
        }
        Ok(())
    }

    /// Lets root and the master's own user send a request. The socket's mode keeps others out; this
    /// holds also where the mode was changed.
    fn authorize(&mut self, now: Time, connection: Channel) -> io::Result<()> {
        let peer = connection.peer()?;
        let operator = Operator { connection, peer };
        if peer.uid() == 0 || peer.uid() == privilege::user().0 {
            let operators = &mut self.admin.control.operators;
            return operators.keep(now, operator, Interest::Readable, &self.poll);
        }
        // To close the connection with an unread request would lose the answer.
        operator.connection.read(&mut [0]);
        operator.answer(Answer::Forbidden);
        self.log_outcome(now, peer, &Outcome::new("a request", Answer::Forbidden));
        Ok(())
    }

    /// Takes an operator's request.
    pub(super) fn serve_operator(&mut self, now: Time, at: usize) {
        let operator = self.admin.control.operators.remove(at, &self.poll);
        let Some(operator) = operator else {
            return;
        };
        let mut message = [0; Request::SIZE + 1];
        let Found::Bytes(length) = operator.connection.read(&mut message) else {
            return;
        };
        let outcome = match Request::decode(&message[..length]) {
            Some(request) => self.execute(now, request),
            None => Outcome::new("a request", Answer::Malformed),
        };
        self.admin.control.pending.push((operator, outcome));
    }

    /// Answers the operators whose requests were carried out: all that they have asked for is done.
    pub(in crate::runtime) fn answer_operators(&mut self, now: Time) {
        if !self.is_settled() {
            return;
        }
        for (operator, outcome) in std::mem::take(&mut self.admin.control.pending) {
            operator.answer(outcome.answer);
            self.log_outcome(now, operator.peer, &outcome);
        }
    }

    /// Does what is requested, unless that is not possible.
    fn execute(&mut self, now: Time, request: Request) -> Outcome {
        let (verb, event): (_, fn(ServiceId) -> Event) = match request {
            Request::Pause(_) => ("pause", |service| Event::Pause { service }),
            Request::Resume(_) => ("resume", |service| Event::Resume { service }),
            Request::Replace(_) => ("reload", |service| Event::Replace { service }),
            Request::Wake(_) => ("wake up", |service| Event::Wake { service }),
            Request::Verbose(verbose) => {
                let level = if verbose { "verbose" } else { "quiet" };
                self.step(now, Event::Verbose(verbose));
                self.admin.renew_document();
                return Outcome::new(format!("log level {level}"), Answer::Done);
            }
        };
        let found = request.target().and_then(|target| self.find(target));
        let Some((id, service)) = found else {
            return Outcome::new(format!("{verb} a service"), Answer::Unknown);
        };
        let refusal = match request {
            Request::Wake(_) => why_not_woken(service),
            _ => None,
        };
        let outcome = Outcome {
            what: format!("{verb} {}", described(service.config())),
            service: Some(service.config().clone()),
            answer: refusal.unwrap_or(Answer::Done),
        };
        if refusal.is_none() {
            self.step(now, event(id));
            self.admin.renew_document();
        }
        outcome
    }

    /// The service that is meant, if it is still the one at its place.
    fn find(&self, target: Target) -> Option<(ServiceId, &Service)> {
        let id = ServiceId::from_index(target.place as usize);
        let service = self.table.service(id).filter(|s| !s.removed())?;
        let (kind, canonical) = service.config().identity();
        (Target::new(target.place, kind, canonical) == target).then_some((id, service))
    }

    fn log_outcome(&mut self, now: Time, peer: UnixCredentials, outcome: &Outcome) {
        let (uid, pid) = (peer.uid(), peer.pid());
        let Outcome { what, service, .. } = outcome;
        let about = service.as_deref().map(about).unwrap_or_default();
        match outcome.answer.refusal() {
            None => {
                let text = format!("{what}: done, for uid {uid} pid {pid}");
                self.log.write_about(Severity::Info, about, text);
            }
            Some(why) => {
                let text = format!("{what}: refused to uid {uid} pid {pid}: {why}");
                self.admin.warnings.write(now, &mut self.log, about, text);
            }
        }
    }
}

/// Why a service cannot be woken up, if it cannot.
fn why_not_woken(service: &Service) -> Option<Answer> {
    if service.paused() {
        Some(Answer::Paused)
    } else if service.throttled() {
        Some(Answer::Throttled)
    } else if service.config().kind == Kind::UnixDgram {
        Some(Answer::Datagrams)
    } else {
        None
    }
}
