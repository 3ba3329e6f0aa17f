//! Operators' commands: one request each, which is answered, and logged with the process that has
//! sent it, whether it was granted or refused.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sys::socket::UnixCredentials;

use crate::config::{self, Kind};
use crate::control::{Answer, PROGRAM_MAX, Request, Target, decode_upgrade};
use crate::log::Severity;
use crate::policy::{Event, Service, ServiceId, Time};
use crate::runtime::Runtime;
use crate::runtime::services::{about, described};
use crate::sys::channel::{Channel, Found};
use crate::sys::poll::Interest;
use crate::sys::privilege;

/// What came of a request.
#[derive(Debug)]
pub(super) struct Outcome {
    /// What was to be done, in words.
    what: String,
    service: Option<Arc<config::Service>>,
    answer: Answer,
}

impl Outcome {
    /// The outcome of a request that is about no service, or an unknown one.
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
        while let Some(connection) = self.admin.operators.accept(now, &self.poll)? {
            self.authorize(now, connection)?;
        }
        Ok(())
    }

    /// Lets root and the master's own user send a request. The socket's mode keeps others out; this
    /// holds also where the mode was changed.
    fn authorize(&mut self, now: Time, connection: Channel) -> io::Result<()> {
        let peer = connection.peer()?;
        if peer.uid() == 0 || peer.uid() == privilege::user().0 {
            let operators = &mut self.admin.operators;
            return operators.keep(now, connection, Interest::Readable, &self.poll);
        }
        // To close the connection with an unread request would lose the answer.
        connection.read(&mut [0]);
        let outcome = Outcome::new("a request", Answer::Forbidden);
        self.answer(now, &connection, peer, &outcome);
        Ok(())
    }

    /// Takes an operator's request.
    pub(super) fn serve_operator(&mut self, now: Time, at: usize) -> io::Result<()> {
        let Some(connection) = self.admin.operators.remove(at, &self.poll) else {
            return Ok(());
        };
        let peer = connection.peer()?;
        let mut message = [0; PROGRAM_MAX + Request::SIZE];
        let Found::Bytes(length) = connection.read(&mut message) else {
            return Ok(());
        };
        if let Some(program) = decode_upgrade(&message[..length]) {
            let program = program.map(|path| PathBuf::from(OsStr::from_bytes(path)));
            self.request_upgrade(now, program, Some((connection, peer)));
            return Ok(());
        }
        let outcome = match Request::decode(&message[..length]) {
            Some(request) => self.execute(now, request),
            None => Outcome::new("a request", Answer::Malformed),
        };
        self.admin.pending.push((connection, peer, outcome));
        Ok(())
    }

    /// Answers the operators whose requests were carried out: all that they have asked for is done.
    pub(in crate::runtime) fn answer_operators(&mut self, now: Time) {
        if !self.is_settled() {
            return;
        }
        for (connection, peer, outcome) in std::mem::take(&mut self.admin.pending) {
            self.answer(now, &connection, peer, &outcome);
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

    /// Answers an operator that has asked for an upgrade, with the reason why there is none.
    pub(in crate::runtime) fn answer_upgrade(
        &mut self,
        now: Time,
        connection: &Channel,
        peer: UnixCredentials,
        answer: Answer,
        why: &str,
    ) {
        if answer.refusal().is_some() {
            let message = [&answer.encode(), why.as_bytes()].concat();
            let _ = connection.send(&message);
            return;
        }
        self.answer(now, connection, peer, &Outcome::new("upgrade", answer));
    }

    /// Answers an operator, and logs what came of the request.
    fn answer(
        &mut self,
        now: Time,
        connection: &Channel,
        peer: UnixCredentials,
        outcome: &Outcome,
    ) {
        // An operator that has gone sees in the status what was done.
        let _ = connection.send(&outcome.answer.encode());
        let (uid, pid) = (peer.uid(), peer.pid());
        let what = &outcome.what;
        let about = outcome.service.as_deref().map(about).unwrap_or_default();
        if let Some(why) = outcome.answer.refusal() {
            let text = format!("{what}: refused to uid {uid} pid {pid}: {why}");
            self.admin.warn(now, &mut self.log, about, text);
        } else {
            let text = format!("{what}: done, for uid {uid} pid {pid}");
            self.log.write_about(Severity::Info, about, text);
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
