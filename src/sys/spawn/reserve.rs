//! The descriptors that are reserved for children, at the start and after an upgrade, and what an
//! upgrade must know of children on their way.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::{Launch, Limit, Spawner};
use crate::protocol;
use crate::sys::process::{self, open_dev_null};

impl Spawner {
    /// Takes the children's descriptors, as [`Self::new`], for a program that goes on in the place of
    /// another: the flow pipe is there, and these children are its [unfinished](Self::unfinished) ones.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn resume(limit: Option<Limit>, unfinished: Vec<(i32, Duration)>) -> io::Result<Self> {
        let mut spawner = Self::reserve(limit, protocol::STATUS)?;
        spawner.taken_over = unfinished;
        Ok(spawner)
    }

    /// Children that may not have executed their program, and when they have taken too long.
    pub fn unfinished(&self) -> Vec<(i32, Duration)> {
        let launches = self.launches.iter();
        let own = launches.filter_map(|launch| Some((launch.pid, launch.deadline?)));
        own.chain(self.taken_over.iter().copied()).collect()
    }

    /// A child of a former program that has not executed its own in time; each is told once.
    pub(super) fn next_taken_over(&mut self, now: Duration) -> Option<i32> {
        let late = |(_, deadline): &(i32, Duration)| *deadline <= now;
        while let Some(at) = self.taken_over.iter().position(late) {
            let (pid, _) = self.taken_over.swap_remove(at);
            if !process::has_executed(pid) {
                return Some(pid);
            }
        }
        None
    }

    pub(super) fn reserve(limit: Option<Limit>, first: RawFd) -> io::Result<Self> {
        let spawner = Self {
            null: open_dev_null(Self::END)?,
            used: protocol::STATUS,
            launches: Vec::new(),
            taken_over: Vec::new(),
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
