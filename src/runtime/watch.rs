//! Which listeners are watched, and what is done with a listener that a child has shut down
//! (shutdown(2) on a descriptor that all children share).

use std::io;
use std::mem;

use super::reload::open_again;
use super::services::{about, described};
use super::{Runtime, errno};
use crate::config::Kind;
use crate::log::Severity;
use crate::policy::{Event, ServiceId, Time};

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
        let owner = self.config.parameters.mail_owner.1;
        let Some(io) = self.services.get_mut(id) else {
            return;
        };
        let service = io.service.clone();
        let too_often = io.activity().listened_again.allow(now).is_none();
        let local = service.kind != Kind::Inet;
        let inherited = io.listeners.iter().any(|l| l.is_inherited());
        let was_watched = self.services.forget(id, &self.poll);
        let (result, what) = if too_often {
            (invalid(), "throttling, for that happens too often")
        } else if local && inherited {
            (
                invalid(),
                "throttling, for it is the service manager's: restart its socket unit",
            )
        } else if local {
            let opened = open_again(&service, owner);
            (
                opened.map(|listener| self.services.set_listener(id, listener)),
                "it listens again",
            )
        } else {
            let listeners = self.services.get(id).map_or(&[][..], |io| &io.listeners);
            let mut listeners = listeners.iter();
            let result = listeners.try_for_each(|listener| listener.listen_again(service.backlog));
            (result, "it listens again")
        };
        let name = described(&service);
        let text = format!("{name}: a child has shut down the listener -- {what}");
        self.log
            .write_about(Severity::Warning, about(&service), text);
        self.turn.clients.retain(|other| *other != id);
        if let Err(error) = result {
            let error = errno(&error);
            return self.step(now, Event::WatchFailed { service: id, error });
        }
        if local {
            // The children have the former listener.
            self.step(now, Event::Replace { service: id });
        }
        if was_watched {
            self.watch(now, id);
        } else {
            self.services.watch_hangup(id, &self.poll);
        }
    }
}

/// What the system would say of an accept(2) from such a listener.
fn invalid() -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}
