//! Which listeners are watched, and what is done with a listener that a child has shut down
//! (shutdown(2) on a descriptor that all children share).

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::reload::open_again;
use super::services::{ServiceIo, about, described};
use super::{Runtime, errno};
use crate::config::{ListenAddress, Parameters};
use crate::log::Severity;
use crate::policy::{Event, ServiceId, Time};
use crate::sys::hangups::is_hung_up;
use crate::sys::listen::Listener;
use crate::sys::poll;

impl Runtime {
    /// Has the poller report clients of the service.
    pub(super) fn watch(&mut self, now: Time, service: ServiceId) {
        if let Err(error) = self.services.watch(service, &self.poll) {
            let error = errno(&error);
            self.step(now, Event::WatchFailed { service, error });
        }
    }

    /// Has the services listen again of which children have shut down listeners.
    pub(super) fn mend_listeners(&mut self, now: Time) {
        let mut services = mem::take(&mut self.turn.hung_up);
        services.sort_unstable();
        services.dedup();
        for id in services {
            self.listen_again(now, id);
        }
    }

    fn listen_again(&mut self, now: Time, id: ServiceId) {
        let was_watched = self.services.forget(id, &self.poll);
        let parameters = &self.config.parameters;
        let Some(io) = self.services.get_mut(id) else {
            return;
        };
        let service = io.service.clone();
        let (what, done) = if io.activity().listened_again.allow(now).is_none() {
            ("throttling, for that happens too often", Err(refused()))
        } else if io.is_path_of_manager_shut_down() {
            let what = "throttling, for it is the service manager's: restart its socket unit";
            (what, Err(refused()))
        } else {
            let done = io.listen_again(parameters);
            ("it listens again", done)
        };
        let name = described(&service);
        let text = format!("{name}: a child has shut down the listener -- {what}");
        self.log
            .write_about(Severity::Warning, about(&service), text);
        self.turn.clients.retain(|other| *other != id);
        match done {
            Ok(Opened::Others) => self.step(now, Event::Replace { service: id }),
            Ok(Opened::Same) => {}
            Err(error) => {
                let error = errno(&error);
                return self.step(now, Event::WatchFailed { service: id, error });
            }
        }
        if was_watched {
            self.watch(now, id);
        } else {
            self.services.watch_hangup(id, &self.poll);
        }
    }
}

/// What a service listens with again.
enum Opened {
    /// The listeners that its children have.
    Same,
    /// Others: the children must be replaced.
    Others,
}

impl ServiceIo {
    /// Whether this is so of a listener at a path that the service manager has handed over.
    fn is_path_of_manager_shut_down(&self) -> bool {
        let mut paths = self.by_address().filter(|(address, _)| address.is_path());
        paths.any(|found| found.1.is_inherited() && is_shut_down(found))
    }

    /// Opens listeners in the place of those that are shut down. One of the service manager cannot
    /// be opened by the master: it is made to listen again.
    fn listen_again(&mut self, parameters: &Parameters) -> io::Result<Opened> {
        let mut result = Opened::Same;
        let shut_down = self.by_address().map(is_shut_down);
        for (place, shut_down) in shut_down.collect::<Vec<_>>().into_iter().enumerate() {
            if !shut_down {
                continue;
            }
            if self.listeners[place].is_inherited() {
                let backlog = self.service.backlog;
                // A child keeps it from that, which could last for ever: one attempt at a time.
                let former = self.activity().listening_again.as_ref();
                if former.is_some_and(|former| !is_readable(former)) {
                    return Err(refused());
                }
                let done = self.listeners[place].listen_again(backlog)?;
                self.activity().listening_again = Some(done);
            } else {
                let opened = open_again(&self.service, place, parameters)?;
                self.set_listener(place, opened);
                result = Opened::Others;
            }
        }
        Ok(result)
    }
}

fn is_shut_down((address, listener): (ListenAddress<'_>, &Arc<Listener>)) -> bool {
    match address {
        // Of a local one, the system goes on to say that it listens.
        ListenAddress::Path(_) => is_hung_up(&**listener).unwrap_or(true),
        ListenAddress::Inet(_) => !listener.is_listening(),
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    poll::wait_until_readable(fd.as_fd(), Duration::ZERO)
}

/// What the system would say of an accept(2) from such a listener.
fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}
