//! What else listens at the addresses that a plan needs. The kernel would divide the clients of an
//! address between two listeners of one user, and those of the other could wait in vain.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::errors::describe_error;
use crate::sys::foreign::{Found, Holder, Holders, Listening, close};
use crate::sys::listen::{self, Listener};
use crate::sys::privilege;

/// Other listeners, looked up when the system refuses an address for the first time: a start without
/// any does not look.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    listening: Option<Listening>,
    holders: Option<Holders>,
    /// What else was taken from processes that were looked at.
    taken: Vec<OwnedFd>,
    pub(super) warnings: Vec<String>,
}

impl Foreign {
    /// Takes over what a former master has left at an address to its children, with the clients that
    /// wait there. None if no other process listens at the same address.
    ///
    /// # Errors
    /// Which process it is that listens there, in words.
    pub(super) fn take_over(&mut self, address: SocketAddr) -> io::Result<Option<Listener>> {
        let found: Vec<Found> = match self.listening() {
            Ok(listening) => listening.at(address).collect(),
            Err(error) => {
                let reason = describe_error(&error);
                self.warnings.push(format!(
                    "cannot see whether another program listens on {address}, too, which would get \
                     a part of its clients: {reason}"
                ));
                return Ok(None);
            }
        };
        let mut all = Vec::new();
        for found in found {
            all.extend(self.take_over_one(found)?);
        }
        let mut all = all.into_iter();
        let first = all.next();
        // Of several, one goes on.
        listen::close(all, listen::SHUTDOWN_TIME);
        Ok(first)
    }

    fn listening(&mut self) -> io::Result<&Listening> {
        if self.listening.is_none() {
            self.listening = Some(Listening::read()?);
        }
        self.listening
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn holders(&mut self, found: Found) -> Vec<Holder> {
        let holders = match (&mut self.holders, &self.listening) {
            (Some(holders), _) => holders,
            (none, Some(listening)) => none.insert(Holders::read(listening)),
            (none, None) => none.insert(Holders::default()),
        };
        holders.of(found.inode).to_vec()
    }

    /// None if it is the master's own, or is gone by now.
    fn take_over_one(&mut self, found: Found) -> io::Result<Option<Listener>> {
        let holders = self.holders(found);
        let own = std::process::id();
        if holders
            .iter()
            .any(|holder| u32::try_from(holder.pid) == Ok(own))
        {
            return Ok(None);
        }
        let mut listener = None;
        for holder in &holders {
            let left = match holder.take_over(found.inode, &mut self.taken) {
                Ok(left) => left.filter(|_| found.uid == privilege::user().0),
                Err(error) => {
                    let reason = describe_error(&error);
                    let reason = format!(", and cannot be looked at: {reason}");
                    return Err(in_use(found, Some(holder), &reason));
                }
            };
            if left.is_none() {
                return Err(in_use(found, Some(holder), ""));
            }
            listener = left;
        }
        match (&listener, holders.first()) {
            (Some(_), Some(Holder { pid, name, .. })) => self.warnings.push(format!(
                "took over the listener on {} that a former master left to process {pid} ({name})",
                found.address
            )),
            _ => return Err(in_use(found, None, "")),
        }
        Ok(listener)
    }

    /// Which process it is because of which the system refuses an address, if that is another.
    pub(super) fn explain(&mut self, address: SocketAddr) -> Option<io::Error> {
        let own = i32::try_from(std::process::id()).ok();
        let found: Vec<Found> = self.listening().ok()?.overlapping(address).collect();
        found.into_iter().find_map(|found| {
            let holders = self.holders(found);
            let is_own = holders.iter().any(|holder| Some(holder.pid) == own);
            (!is_own).then(|| in_use(found, holders.first(), ""))
        })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        close(std::mem::take(&mut self.taken));
    }
}

fn in_use(found: Found, holder: Option<&Holder>, reason: &str) -> io::Error {
    let Found { address, uid, .. } = found;
    let words = match holder {
        Some(Holder { pid, name, .. }) => format!(
            "process {pid} ({name}) listens on {address}{reason}: end it with \"kill {pid}\", or \
             choose another address"
        ),
        None => format!(
            "a process that /proc does not show without CAP_SYS_PTRACE, or in another container, \
             listens on {address} for user ID {uid}{reason}: end it, or choose another address"
        ),
    };
    io::Error::other(format!("Address already in use: {words}"))
}
