//! The master's own clients: programs that read its status, and operators' commands. They are
//! handled after service traffic, and however many they are, they get a small share of the time.

mod admission;
mod control_socket;
mod document;
mod status_socket;

use std::fmt::Display;
use std::io;

use crate::config::User;
use crate::errors::describe_error;
use crate::log::{About, Log, Severity};
use crate::policy::{Limiter, Time};
use crate::sys::poll::Poll;

use super::Runtime;
use super::token::Token;
use control_socket::ControlSocket;
use status_socket::StatusSocket;

#[derive(Debug, Default)]
pub(super) struct Admin {
    status: StatusSocket,
    control: ControlSocket,
    warnings: Warnings,
}

/// Warnings about clients of the master, which must not fill the log.
#[derive(Debug, Default)]
struct Warnings(Limiter);

impl Warnings {
    fn write(&mut self, now: Time, log: &mut Log, about: About<'_>, text: impl Display) {
        let Some(suppressed) = self.0.allow(now) else {
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
        self.write(now, log, About::default(), text);
    }
}

impl Admin {
    /// Opens the sockets. The master serves without them where that is not possible.
    pub(super) fn open(&mut self, owner: User, poll: &Poll, log: &mut Log) {
        for opened in [self.status.open(owner, poll), self.control.open(poll)] {
            if let Err(error) = opened {
                log.warning(format!("{error:#}"));
            }
        }
    }

    /// The next status document is to be made anew, because something was done just now.
    pub(super) fn renew_document(&mut self) {
        self.status.renew();
    }

    /// Whether operators wait until their requests are carried out.
    pub(super) fn awaits_answer(&self) -> bool {
        self.control.awaits_answer()
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let deadlines = [self.status.next_deadline(), self.control.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Ends the connections that have lasted too long, and lets others in.
    pub(super) fn expire(&mut self, now: Time, poll: &Poll, log: &mut Log) {
        for expired in [
            self.status.expire(now, poll),
            self.control.expire(now, poll),
        ] {
            if let Err(error) = expired {
                self.warnings.cannot_serve(now, log, &error);
            }
        }
    }
}

impl Runtime {
    /// Serves the master's own clients that are ready.
    pub(super) fn administer(&mut self, now: Time) {
        for token in std::mem::take(&mut self.turn.admin) {
            let served = match token {
                Token::StatusListener => self.accept_readers(now),
                Token::StatusConnection(at) => {
                    self.admin.status.send(at, &self.poll);
                    Ok(())
                }
                Token::ControlListener => self.accept_operators(now),
                Token::ControlConnection(at) => {
                    self.serve_operator(now, at);
                    Ok(())
                }
                _ => Ok(()),
            };
            if let Err(error) = served {
                self.admin.warnings.cannot_serve(now, &mut self.log, &error);
            }
        }
    }
}
