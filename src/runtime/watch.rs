//! Clients that wait: which listeners are watched, and what is done with a listener that a child
//! has shut down (shutdown(2) on a descriptor that all children share).

use std::io;
use std::mem;
use std::time::Duration;

use super::reload::open_again;
use super::services::{about, described};
use super::{Runtime, errno};
use crate::config::Kind;
use crate::log::Severity;
use crate::policy::{Event, ServiceId, Time};

/// A listener that is shut down again within this time is not made to listen at once: its service
/// is throttled.
const AGAIN: Duration = Duration::from_secs(1);

impl Runtime {
    /// Has the poller report clients of the service.
    pub(super) fn watch(&mut self, now: Time, service: ServiceId) {
        let io = self.services.get_mut(service);
        let watched = io.map_or(Ok(()), |io| io.watch(service, &self.poll));
        if let Err(error) = watched {
            let error = errno(&error);
            self.step(now, Event::WatchFailed { service, error });
        }
    }

    /// A listener of the service is ready: clients wait, or it was shut down.
    pub(super) fn listener_ready(&mut self, now: Time, id: ServiceId, hung_up: bool) {
        let Some(io) = self.services.get(id) else {
            return;
        };
        if io.is_shut_down(hung_up) {
            self.listen_again(now, id);
        } else if self.turn.clients.last() != Some(&id) {
            self.turn.clients.push(id);
        }
    }

    /// Tells the policy of clients that wait.
    pub(super) fn report_clients(&mut self, now: Time) {
        let mut services = mem::take(&mut self.turn.clients);
        for service in services.drain(..) {
            let Some(io) = self.services.get(service) else {
                continue;
            };
            let clients = if io.service.is_ordered() {
                io.clients()
            } else {
                1
            };
            self.step(now, Event::Connection { service, clients });
        }
        self.turn.clients = services;
    }

    /// Has a service listen again, of which a child has shut a listener down.
    fn listen_again(&mut self, now: Time, id: ServiceId) {
        let owner = self.config.parameters.mail_owner.1;
        let Some(io) = self.services.get_mut(id) else {
            return;
        };
        let service = io.service.clone();
        let last = io.activity().listened_again.replace(now);
        let too_often = last.is_some_and(|at| now.saturating_sub(at) < AGAIN);
        let was_watched = io.forget(&self.poll);
        let result = if too_often {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        } else if service.kind == Kind::Inet {
            io.listeners
                .iter()
                .try_for_each(|listener| listener.listen_again(service.backlog))
        } else {
            open_again(&service, owner).map(|listener| io.set_listener(listener))
        };
        let (name, result) = (described(&service), result);
        let text = match &result {
            Ok(()) => format!("{name}: a child has shut the listener down; it listens again"),
            Err(_) => format!("{name}: a child has shut the listener down"),
        };
        self.log
            .write_about(Severity::Warning, about(&service), text);
        match result {
            Err(error) => {
                let error = errno(&error);
                self.step(now, Event::WatchFailed { service: id, error });
            }
            Ok(()) => {
                if service.kind != Kind::Inet {
                    // The children have the former listener.
                    self.step(now, Event::Replace { service: id });
                }
                if was_watched {
                    self.watch(now, id);
                }
            }
        }
    }
}
