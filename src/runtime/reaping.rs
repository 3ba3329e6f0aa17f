//! The reaping of the dead. A signal names one child that has died, and does not come again for
//! others that die before it is read. To find those the kernel looks at every child that lives, so
//! where many do it is asked for them only now and then.

use std::iter;
use std::mem;
use std::time::Duration;

use super::Runtime;
use crate::policy::{Event, ExitStatus, Pid, Time};
use crate::sys::process::{self, Dead, End};

/// Children reaped in one turn: a few milliseconds, for which clients wait. Those that we inherit
/// as process 1 may die faster than they can be reaped.
const DEAD_MAX: usize = 64;
/// With no more children than this the kernel is asked for others each time.
const FEW: usize = 100;
/// With more, this much passes for each child until it is asked again. To look at one takes 30 ns, or
/// 200 where caches are small, so that it does so for no more than a fiftieth of the time.
const PAUSE: Duration = Duration::from_micros(10);

/// What is known of the dead that were not reaped yet.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    named: Option<Pid>,
    /// When the kernel is to be asked for others, and when it was asked last.
    ask_at: Option<Time>,
    asked: Time,
}

impl Reaper {
    /// A signal says that this child has died, and perhaps others.
    pub(super) fn hear(&mut self, now: Time, pid: Pid, living: usize) {
        self.named = Some(pid);
        let pause = match u32::try_from(living) {
            Ok(living) if living as usize > FEW => PAUSE * living,
            _ => Duration::ZERO,
        };
        self.ask_at.get_or_insert(now.max(self.asked + pause));
    }

    /// When there are, or may be, dead children to reap.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.ask_at
    }

    /// Reaps as many as can be reaped in a turn.
    fn reap(&mut self, now: Time, dead: &mut Vec<Dead>) {
        dead.extend(self.named.take().and_then(process::reap));
        if self.ask_at.is_none_or(|at| now < at) {
            return;
        }
        let room = DEAD_MAX - dead.len();
        let before = dead.len();
        dead.extend(iter::from_fn(process::reap_any).take(room));
        self.asked = now;
        self.ask_at = Some(now).filter(|_| dead.len() - before == room);
    }
}

impl Runtime {
    /// Reaps the dead, unless somebody is still to be signalled who may be among them.
    pub(super) fn reap(&mut self, now: Time) {
        if !self.chores.are_done() {
            return;
        }
        let turn = &mut self.turn;
        self.reaper.reap(now, &mut turn.dead);
        let dead = turn.dead.iter().map(|d| d.pid);
        turn.heard
            .extend(dead.filter(|&pid| self.channels.has(pid)));
    }

    /// Tells the policy of the dead.
    pub(super) fn bury_dead(&mut self, now: Time) {
        let mut dead = mem::take(&mut self.turn.dead);
        for Dead { pid, end } in dead.drain(..) {
            let status = match end {
                End::Code(code) => ExitStatus::Code(code),
                End::Signal(signal) => ExitStatus::Signal(signal),
            };
            self.channels.remove(pid, &self.poll);
            self.reports.ended(pid);
            self.step(now, Event::Exited { pid, status });
        }
        self.turn.dead = dead;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 5_000;

    #[test]
    fn where_few_live_the_kernel_is_asked_at_once() {
        let mut reaper = Reaper::default();
        for now in [1, 2, 3].map(Duration::from_micros) {
            reaper.hear(now, 7, FEW);
            assert_eq!(reaper.next_deadline(), Some(now));
            reaper.reap(now, &mut Vec::new());
            assert_eq!(reaper.next_deadline(), None);
        }
    }

    #[test]
    fn where_many_live_the_kernel_is_asked_again_after_a_while() {
        let mut reaper = Reaper::default();
        let first = Duration::from_secs(1);
        reaper.hear(first, 7, MANY);
        assert_eq!(reaper.next_deadline(), Some(first));
        reaper.reap(first, &mut Vec::new());
        let again = first + Duration::from_millis(50);
        for now in [first, first + Duration::from_millis(49)] {
            reaper.hear(now, 7, MANY);
            reaper.reap(now, &mut Vec::new());
            assert_eq!(reaper.next_deadline(), Some(again));
        }
        reaper.reap(again, &mut Vec::new());
        assert_eq!(reaper.next_deadline(), None);
    }
}
