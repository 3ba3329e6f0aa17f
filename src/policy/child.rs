//! One child: what it does, and what its end says.

use serde_derive::{Deserialize, Serialize};

use super::deadlines::Termination;
use super::service::Context;
use super::timers::Timer;
use super::{ExitStatus, Pid, Service, Time};

/// Signals by which the master ends children. POSIX has these numbers for kill(1).
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What a child does. One that shares its listeners is idle or busy, as it reported last; a new one
/// counts as idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// It has not reported anything yet.
    Starting,
    /// It waits for a client, or for an order.
    Idle,
    /// It was ordered to accept, and has not answered.
    Ordered,
    /// It has a client.
    Busy,
    /// It was told to end.
    Killed,
    /// It cannot be heard any more: it has ended, or should have.
    Gone,
}

impl State {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Idle,
        Self::Ordered,
        Self::Busy,
        Self::Killed,
        Self::Gone,
    ];

    /// The letter under which `spamd` logs it; an ordered child has none there.
    pub fn letter(self) -> char {
        char::from(b"SIABKZ"[self as usize])
    }
}

/// Why a child is not counted on any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Leaving {
    /// It was told to leave, for no fault of its own or one that says nothing about its command.
    Told,
    /// Another is to take its place, see [`Service::recycle`].
    Recycled,
    /// A child of an ordered pool did not keep to the rules, and was told to end.
    Rogue,
    /// A child of an ordered pool has closed its channel.
    Gone,
    /// It has not executed its program.
    Hanging,
}

/// What one child adds to the counts of its service.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    /// In [`Service::avail`].
    pub(super) available: bool,
    /// In [`Service::departing`]: nothing more is expected of it.
    pub(super) departing: bool,
    pub(super) starting: bool,
    pub(super) has_order: bool,
    /// Others are to take its place.
    pub(super) old: bool,
    pub(super) hanging: bool,
    pub(super) recycled: bool,
    pub(super) deadline: Option<Time>,
}

/// One child: Postfix's `MASTER_PROC`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Child {
    pub(super) generation: u32,
    /// It is in an ordered pool: it accepts when it is told to.
    pub(super) ordered: bool,
    /// Starting, Idle, Ordered or Busy. A child of an ordered pool that leaves is not heard any
    /// more, so that this stays what it was before.
    pub(super) state: State,
    /// Why its channel was closed; none while it is heard.
    pub(super) leaving: Option<Leaving>,
    /// An ordered child from before the last reload.
    pub(super) old: bool,
    /// How often it became available again, that is, how many clients it has served.
    pub(super) uses: u32,
    /// How many clients it has reported, the one that it has included.
    pub(super) clients: u32,
    pub(super) started: Time,
    /// When its client began, by its report. Of a child in state Ordered: when the order was given,
    /// set once ORDER_TIMEOUT has passed and other orders do not wait for the answer.
    pub(super) since: Option<Time>,
    /// When it was told to leave; of a busy child of a pool also when a reload began, because the
    /// time of its client is limited from then on.
    pub(super) leave_since: Option<Time>,
    /// When it reaches its `max_age`, less its share of a tenth.
    #[serde(default)]
    pub(super) recycle_at: Option<Time>,
    /// The memory that it used when it was measured last, in bytes.
    #[serde(default)]
    pub(super) memory: u64,
    /// Whether it got a signal that ends it, and when.
    pub(super) termination: Termination,
    /// When the next time limit of those that hold for it is over.
    pub(super) deadline: Option<Time>,
}

impl Child {
    pub(super) fn new(generation: u32, now: Time, ordered: bool) -> Self {
        Self {
            generation,
            ordered,
            state: if ordered {
                State::Starting
            } else {
                State::Idle
            },
            leaving: None,
            old: false,
            uses: 0,
            clients: 0,
            started: now,
            since: None,
            leave_since: None,
            recycle_at: None,
            memory: 0,
            termination: Termination::No,
            deadline: None,
        }
    }

    /// What it does in its ordered pool.
    #[inline]
    pub(super) fn pool_state(&self) -> Option<State> {
        let state = match self.leaving {
            None => self.state,
            Some(Leaving::Gone) => State::Gone,
            Some(_) => State::Killed,
        };
        self.ordered.then_some(state)
    }

    /// Whether its channel is open: it was not told to leave.
    pub(super) fn is_heard(&self) -> bool {
        self.leaving.is_none()
    }

    /// Whether it counts as busy; one that was told to leave may still have its client.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Ordered | State::Busy) && !self.counted().departing
    }

    /// It is told to leave, unless it was before.
    pub(super) fn leaves(&mut self, why: Leaving, now: Time) {
        self.leaving.get_or_insert(why);
        self.leave_since.get_or_insert(now);
    }

    pub(super) fn hangs(&self) -> bool {
        self.leaving == Some(Leaving::Hanging)
    }

    #[inline]
    pub(super) fn counted(&self) -> Counted {
        let heard = self.is_heard();
        Counted {
            available: heard && self.state == State::Idle,
            departing: !heard && (self.ordered || self.state == State::Idle),
            starting: heard && self.state == State::Starting,
            has_order: heard && self.state == State::Ordered,
            old: heard && self.old,
            hanging: self.hangs(),
            recycled: self.leaving == Some(Leaving::Recycled),
            deadline: self.deadline,
        }
    }

    fn info(&self, pid: Pid) -> ChildInfo {
        let state = match self.state {
            _ if !self.is_heard() => ChildState::Leaving,
            State::Starting => ChildState::Starting,
            State::Idle => ChildState::Available,
            _ => ChildState::Busy,
        };
        ChildInfo {
            pid,
            generation: self.generation,
            state,
            clients: self.clients,
            started: self.started,
        }
    }

    /// What its end says, of a service that is removed or not.
    pub(super) fn end(&self, status: ExitStatus, removed: bool) -> End {
        let indicts_command = self.uses == 0 && !self.is_excused(removed);
        let was_ended = self.is_masters_end(status, removed);
        let expected = self.hangs() || was_ended && !indicts_command;
        // Nothing else would show a command that does nothing.
        let unready = indicts_command && self.state == State::Starting;
        let failed = (status != ExitStatus::Code(0) || unready) && !expected;
        let had_client = self.state == State::Busy && !self.is_former() && !self.is_rogue();
        End {
            failed,
            indicts_command,
            client_lost: had_client.then_some(failed || self.overstayed()),
            recycled: self.leaving == Some(Leaving::Recycled),
        }
    }

    fn is_rogue(&self) -> bool {
        self.leaving == Some(Leaving::Rogue)
    }

    /// Whether it was told to leave, or is from before the last reload. Then it says nothing about the
    /// command of today.
    fn is_former(&self) -> bool {
        self.old || !self.ordered && !self.is_heard()
    }

    /// Whether it got a signal that ends it.
    fn got_signal(&self) -> bool {
        match self.leaving {
            Some(Leaving::Gone) => self.termination == Termination::Killed,
            _ => self.termination != Termination::No,
        }
    }

    /// Whether it got the signal because it had its client for too long, or did not leave.
    fn overstayed(&self) -> bool {
        self.got_signal() && !self.is_rogue() && (self.state == State::Busy || !self.ordered)
    }

    /// Whether something else than the command explains why it has served no client.
    fn is_excused(&self, removed: bool) -> bool {
        // It was ready, and something else has ended it.
        let started_well = self.ordered && self.state == State::Idle;
        removed || started_well || self.is_former() || self.overstayed() || self.hangs()
    }

    /// Whether this status is that of a signal of the master's.
    fn is_masters_end(&self, status: ExitStatus, removed: bool) -> bool {
        match status {
            ExitStatus::Signal(SIGTERM | SIGKILL) => removed || self.got_signal(),
            ExitStatus::Signal(SIGINT) => self.ordered && self.got_signal(),
            _ => false,
        }
    }
}

/// What a child's end says.
pub(super) struct End {
    /// It was neither good nor asked for.
    pub(super) failed: bool,
    /// Its failure says something about the command: the child has served no client.
    pub(super) indicts_command: bool,
    /// Whether the client that it had was lost, if it had one.
    pub(super) client_lost: Option<bool>,
    /// It has made room for the next one to leave.
    pub(super) recycled: bool,
}

/// What a child does, for the status document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    Starting,
    Available,
    Busy,
    /// It was told to leave; perhaps it still has a client.
    Leaving,
}

/// One child, for the status document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    pub pid: Pid,
    pub generation: u32,
    pub state: ChildState,
    /// Clients that it has reported.
    pub clients: u32,
    pub started: Time,
}

impl Service {
    /// The children, oldest first.
    pub(super) fn children_info(&self) -> Vec<ChildInfo> {
        let children = self.children.iter();
        let mut children: Vec<_> = children.map(|(&pid, child)| child.info(pid)).collect();
        children.sort_by_key(|child| child.started);
        children
    }

    /// The one place where a child changes in what is counted of it or in its deadline.
    pub(super) fn change(
        &mut self,
        cx: &mut Context,
        pid: Pid,
        change: impl FnOnce(&mut Child, Time),
    ) {
        if let Some(child) = self.children.get_mut(&pid) {
            let before = child.counted();
            change(child, cx.now);
            child.deadline = child.next_deadline(&self.config, self.removed, cx.kill_time);
            let after = child.counted();
            self.recount(cx, pid, before, after);
        }
    }

    pub(super) fn change_all(&mut self, cx: &mut Context, change: impl Fn(&mut Child, Time)) {
        for pid in self.children.keys().copied().collect::<Vec<_>>() {
            self.change(cx, pid, &change);
        }
    }

    /// A child counts as `after` instead of `before`.
    #[inline]
    pub(super) fn recount(&mut self, cx: &mut Context, pid: Pid, before: Counted, after: Counted) {
        let moved = |count: &mut u32, before: bool, after: bool| {
            *count = *count + u32::from(after) - u32::from(before);
        };
        moved(&mut self.avail, before.available, after.available);
        moved(&mut self.departing, before.departing, after.departing);
        if before.hanging != after.hanging {
            moved(&mut self.rare_mut().hanging, before.hanging, after.hanging);
            moved(&mut cx.hanging, before.hanging, after.hanging);
        }
        if before.recycled != after.recycled {
            let recycled = &mut self.rare_mut().recycled;
            moved(recycled, before.recycled, after.recycled);
        }
        if let Some(pool) = &mut self.pool {
            moved(&mut pool.starting, before.starting, after.starting);
            moved(&mut pool.old, before.old, after.old);
            pool.replaced = pool.replaced.min(pool.old);
            match (before.available, after.available) {
                (true, false) => drop(pool.idle.remove(&pid)),
                (false, true) => drop(pool.idle.insert(pid)),
                _ => {}
            }
        }
        if before.has_order && !after.has_order {
            self.order_is_over(cx, pid);
        }
        if before.deadline != after.deadline {
            let deadlines = &mut self.rare_mut().deadlines;
            if let Some(at) = before.deadline {
                deadlines.remove(&(at, pid));
            }
            deadlines.extend(after.deadline.map(|at| (at, pid)));
            let first = deadlines.first().map(|(at, _)| *at);
            self.set_timer(cx, Timer::Child, first);
        }
        self.touch(cx);
    }
}
