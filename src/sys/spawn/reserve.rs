//! The descriptors that are reserved for children, at the start and after an upgrade, and what an
//! upgrade must know of children on their way.

use std::io;
use std::os::fd::RawFd;

use super::{Launch, Limit, Spawner};
use crate::protocol;
use crate::sys::process::open_dev_null;

impl Spawner {
    /// Takes the children's descriptors, as [`Self::new`], for a program that goes on in the place of
    /// another: the flow pipe is there.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn resume(limit: Option<Limit>) -> io::Result<Self> {
        Self::reserve(limit, protocol::STATUS)
    }

    pub(super) fn reserve(limit: Option<Limit>, first: RawFd) -> io::Result<Self> {
        let spawner = Self {
            null: open_dev_null(Self::END)?,
            used: protocol::STATUS,
            launches: Vec::new(),
            apart: false,
            limit,
            idle: Vec::new(),
        };
        (first..Self::END).try_for_each(|slot| spawner.clear_slot(slot))?;
        Ok(spawner)
    }

    /// Children's limit on descriptors, where it is not the master's.
    pub fn limit(&self) -> Option<Limit> {
        self.limit
    }

    /// Whether children have not executed their program and may do so soon, or could not and have not
    /// ended.
    pub fn is_starting(&mut self) -> bool {
        self.clear_slots();
        self.collect();
        let starts = |launch: &mut Launch| launch.deadline.is_some() || launch.state().1;
        self.launches.iter_mut().any(starts)
    }
}
