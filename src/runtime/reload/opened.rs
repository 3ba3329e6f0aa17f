//! What was opened for a plan, and how it is taken back if the plan is not carried out.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::User;
use crate::policy::ServiceId;
use crate::runtime::services::{Listeners, close_listeners};
use crate::sys::listen::{Aside, Listener};
use crate::sys::privilege;

/// What was made in the file system, and what stood in its place.
#[derive(Default)]
pub(super) struct Files {
    pub(super) created: Vec<PathBuf>,
    pub(super) asides: Vec<Aside>,
}

impl Files {
    fn keep(&mut self) {
        self.created.clear();
        self.asides.drain(..).for_each(Aside::forget);
    }

    /// Puts back what was there before.
    fn take_back(&mut self) {
        for path in self.created.drain(..) {
            // A name that stays behind is removed by the next master that listens there.
            let _ = std::fs::remove_file(path);
        }
        self.asides.clear();
    }
}

/// Listeners that were opened for a plan. Unless the plan is carried out, dropping this takes back
/// what was made in the file system.
pub(super) struct OpenedListeners {
    pub(super) owner: User,
    pub(super) listeners: Vec<(ServiceId, Listeners)>,
    /// Below the queue directory, where its owner has made it.
    pub(super) in_queue: Files,
    pub(super) elsewhere: Files,
    pub(super) warnings: Vec<String>,
}

impl OpenedListeners {
    /// The plan is carried out: what was made stays, and what it replaced is removed.
    pub(super) fn commit(mut self) -> Vec<(ServiceId, Listeners)> {
        as_owner(self.owner, || self.in_queue.keep());
        self.elsewhere.keep();
        std::mem::take(&mut self.listeners)
    }
}

impl Drop for OpenedListeners {
    fn drop(&mut self) {
        as_owner(self.owner, || self.in_queue.take_back());
        self.elsewhere.take_back();
        for (_, listeners) in self.listeners.drain(..) {
            // What was taken over stays where it was found; the service's own stay with it.
            let (given, new): (Vec<_>, _) = listeners.into_iter().partition(|l| l.is_given());
            let taken = given.into_iter().filter_map(Arc::into_inner);
            taken.for_each(Listener::abandon);
            // Clients may have found them already.
            close_listeners(new);
        }
    }
}

/// Works on the sockets' directories with no more rights than their owner has.
fn as_owner(owner: User, act: impl FnOnce()) {
    // Without the change of user nothing is done, and the file system stays as it is.
    let _ = privilege::as_user(owner.uid, owner.gid, || {
        act();
        Ok(())
    });
}
