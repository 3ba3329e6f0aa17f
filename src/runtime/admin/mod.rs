//! The master's own clients: programs that read its status, and operators' commands. They are
//! handled after service traffic, and however many they are, they get a small share of the time.

mod admission;
mod control_socket;
mod document;
mod status_socket;

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{SockType, UnixCredentials};

use crate::config::User;
use crate::control;
use crate::errors::describe_error;
use crate::log::{About, Log, Severity};
use crate::policy::{Limiter, Time};
use crate::status;
use crate::sys::channel::Channel;
use crate::sys::local::LocalListener;
use crate::sys::poll::{Interest, Poll};
use crate::sys::privilege;
use crate::upgrade::{AdminState, OperatorState, SocketState};

use super::Runtime;
use super::token::Token;
use super::upgrade::{Received, Saving};
use admission::{Admission, LISTENER};
use control_socket::Outcome;
use status_socket::{Last, Reader};

/// The status socket for root and the group of the mail owner, and the one for this user alone.
const SHARED: usize = 0;
const OWN: usize = 1;

#[derive(Debug)]
pub(super) struct Admin {
    /// Programs that read the status document, at [`SHARED`] and at [`OWN`].
    readers: [Admission<Reader>; 2],
    /// The document, while it is current or has readers.
    last: Option<Last>,
    /// Operators' programs that have not sent their requests yet.
    operators: Admission<Channel>,
    /// Operators whose requests are being carried out.
    pending: Vec<(Channel, UnixCredentials, Outcome)>,
    /// Warnings about clients of the master, which must not fill the log.
    warnings: Limiter,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            readers: [Token::Status, Token::OwnStatus].map(Admission::new),
            last: None,
            operators: Admission::new(Token::Control),
            pending: Vec::new(),
            warnings: Limiter::default(),
        }
    }
}

impl Admin {
    /// Opens the sockets. [`SHARED`] is for root and the group of the mail owner; [`OWN`] and the
    /// control socket are for this user alone. Where a socket cannot be opened, the master serves
    /// without it.
    pub(super) fn open(&mut self, owner: User, poll: &Poll, log: &mut Log) {
        let mut check = |name, path, opened| {
            if let Err(error) = opened {
                log.warning(format!("no {name} socket: {path}: {error}"));
            }
        };
        let group = privilege::is_root().then_some(owner.gid);
        let sockets = [(status::SOCKET, group), (status::OWN_SOCKET, None)];
        for ((path, group), readers) in sockets.into_iter().zip(&mut self.readers) {
            let opened = readers.open(Path::new(path), SockType::Stream, group, poll);
            check("status", path, opened);
        }
        let (path, operators) = (control::SOCKET, &mut self.operators);
        let opened = operators.open(Path::new(path), SockType::SeqPacket, None, poll);
        check("control", path, opened);
    }

    /// The sockets and the connections, for the program that goes on.
    pub(super) fn save(
        &self,
        saving: &mut Saving,
        waiting: &[(Channel, UnixCredentials)],
    ) -> AdminState {
        let mut state = AdminState::default();
        let [shared, own] = &self.readers;
        for listener in [shared.listener(), own.listener(), self.operators.listener()] {
            state.sockets.push(listener.map(|listener| {
                let (refuses, file) = listener.known();
                let fd = saving.fd(listener);
                SocketState { fd, refuses, file }
            }));
        }
        for (socket, readers) in self.readers.iter().enumerate() {
            for reader in readers.clients() {
                reader.save(socket, saving, &mut state);
            }
        }
        let operators = self.operators.clients();
        state.operators = operators.map(|channel| saving.channel(channel)).collect();
        let waiting = waiting.iter().map(|(connection, peer)| OperatorState {
            connection: saving.channel(connection),
            uid: peer.uid(),
            pid: peer.pid(),
        });
        state.waiting = waiting.collect();
        state
    }

    /// Goes on with the sockets and connections of a former program.
    ///
    /// # Errors
    /// What could not be carried over first; the rest is.
    pub(super) fn resume(
        &mut self,
        now: Time,
        state: AdminState,
        received: &mut Received,
        poll: &Poll,
    ) -> io::Result<()> {
        let mut outcome = Ok(());
        let mut check = |done: io::Result<()>| {
            if outcome.is_ok() {
                outcome = done;
            }
        };
        let mut sockets = state.sockets.into_iter();
        let mut next = |path, kind| -> io::Result<Option<LocalListener>> {
            let Some(SocketState { fd, refuses, file }) = sockets.next().flatten() else {
                return Ok(None);
            };
            let fd = received.take(fd)?;
            Ok(Some(LocalListener::resume(
                fd,
                Path::new(path),
                kind,
                refuses,
                file,
            )))
        };
        for (path, readers) in [status::SOCKET, status::OWN_SOCKET]
            .into_iter()
            .zip(&mut self.readers)
        {
            let socket = next(path, SockType::Stream);
            let resumed = socket.and_then(|s| s.map_or(Ok(()), |s| readers.resume(s, poll)));
            check(resumed);
        }
        let socket = next(control::SOCKET, SockType::SeqPacket);
        let operators = &mut self.operators;
        check(socket.and_then(|s| s.map_or(Ok(()), |s| operators.resume(s, poll))));
        let documents = state.documents.into_iter();
        let documents: Vec<Arc<[u8]>> = documents.map(|d| d.into_bytes().into()).collect();
        for reader in state.readers {
            let readers = self.readers.get_mut(reader.socket);
            let reader = Reader::resume(reader, &documents, received);
            let kept = reader.and_then(|reader| match readers {
                Some(readers) => readers.keep(now, reader, Interest::Writable, poll),
                None => Err(io::ErrorKind::NotFound.into()),
            });
            check(kept);
        }
        for channel in state.operators {
            let channel = received.channel(channel);
            check(
                channel.and_then(|channel| operators.keep(now, channel, Interest::Readable, poll)),
            );
        }
        outcome
    }

    /// Whether operators wait until their requests are carried out.
    pub(super) fn awaits_answer(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let unread = self.last.as_ref().filter(|_| !self.has_readers());
        let deadlines = [
            self.readers[SHARED].next_deadline(),
            self.readers[OWN].next_deadline(),
            self.operators.next_deadline(),
            unread.map(|last| last.old_at),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Ends the connections that have lasted too long, and lets others in.
    pub(super) fn expire(&mut self, now: Time, poll: &Poll, log: &mut Log) {
        for expired in [
            self.readers[SHARED].expire(now, poll),
            self.readers[OWN].expire(now, poll),
            self.operators.expire(now, poll),
        ] {
            if let Err(error) = expired {
                self.cannot_serve(now, log, &error);
            }
        }
        self.forget_document(now);
    }

    fn warn(&mut self, now: Time, log: &mut Log, about: About<'_>, text: impl Display) {
        let Some(suppressed) = self.warnings.allow(now) else {
            return;
        };
        log.write_about(Severity::Warning, about, text);
        if suppressed > 0 {
            log.warning(format_args!(
                "control socket: {suppressed} more such lines were not logged"
            ));
        }
    }

    fn cannot_serve(&mut self, now: Time, log: &mut Log, error: &io::Error) {
        let reason = describe_error(error);
        let text = format!("cannot serve the status or the control socket: {reason}");
        self.warn(now, log, About::default(), text);
    }
}

impl Runtime {
    /// Serves the master's own clients that are ready.
    pub(super) fn administer(&mut self, now: Time) {
        for token in std::mem::take(&mut self.turn.admin) {
            let served = match token {
                Token::Status(at) => self.serve_readers(now, SHARED, at),
                Token::OwnStatus(at) => self.serve_readers(now, OWN, at),
                Token::Control(LISTENER) => self.accept_operators(now),
                Token::Control(at) => self.serve_operator(now, at),
                _ => Ok(()),
            };
            if let Err(error) = served {
                self.admin.cannot_serve(now, &mut self.log, &error);
            }
        }
    }
}
