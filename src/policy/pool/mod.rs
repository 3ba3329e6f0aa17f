//! Pools whose children accept when they are told to (`accept = "ordered"`), for children that are
//! expensive to start: what a pool knows of its children.

pub(super) mod ordered;
pub(super) mod warm;

use std::collections::{BTreeSet, VecDeque};

use super::service::{Context, require};
use super::{ExitStatus, Pid, Service, Time};
pub(super) use ordered::START_TIME;

/// What a child of an ordered pool does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It has not reported anything yet.
    #[default]
    Starting,
    /// It waits for an order.
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

    /// Whether the child is expected to end, and to do nothing else.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Killed | Self::Gone)
    }
}

/// A child as its pool knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Member {
    pub(super) state: State,
    /// It was started before the last reload.
    old: bool,
    /// What it did before it was told to end, or its channel ended.
    before: State,
}

impl Member {
    /// Whether its end was asked for, and it ended so.
    pub(super) fn was_told(&self, status: ExitStatus) -> bool {
        // SIGINT, SIGTERM and SIGKILL, the numbers of which are the same on every system.
        self.state == State::Killed && matches!(status, ExitStatus::Signal(2 | 15 | 9))
    }

    fn change_state(&mut self, to: State) {
        if to.is_leaving() && !self.state.is_leaving() {
            self.before = self.state;
        }
        self.state = to;
    }

    /// What it did last, whether it was told to end since or not.
    fn last(&self) -> State {
        if self.state.is_leaving() {
            self.before
        } else {
            self.state
        }
    }

    /// Whether it never was ready.
    pub(super) fn was_starting(&self) -> bool {
        self.last() == State::Starting
    }

    /// Whether it had a client when it was last heard.
    pub(super) fn was_busy(&self) -> bool {
        self.last() == State::Busy
    }

    /// Whether a client is lost with it, as with one that had its client for too long.
    pub(super) fn had_client(&self, overstayed: bool) -> bool {
        let busy = self.state != State::Killed && self.was_busy();
        !self.old && (overstayed || busy)
    }

    /// Whether its end, before it has served any client, says something about the command. One that
    /// was ready and had no client has started well, and was ended by something else. The master
    /// tells others to end for a fault of theirs only.
    pub(super) fn indicts_command(&self) -> bool {
        !self.old && self.last() != State::Idle
    }

    fn is_old_and_idle(&self) -> bool {
        self.old && self.state == State::Idle
    }

    fn is_old_and_stays(&self) -> bool {
        self.old && !self.state.is_leaving()
    }
}

/// What the children of one service do that are told when to accept.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// How many are in each state.
    counts: [u32; State::ALL.len()],
    idle: BTreeSet<Pid>,
    /// The orders that stand for a client that waits, and until when; the oldest first.
    outstanding: VecDeque<(Time, Pid)>,
    /// One of them was answered, or came to nothing: look again how many clients wait.
    recheck: bool,
    /// A connection waits, and no child is idle.
    pub(super) overloaded: bool,
    /// The kernel refused to watch the listeners, and is asked again after a throttle.
    pub(super) watch_failed: bool,
    pub(super) ping_at: Option<Time>,
    /// Children from before the last reload that are not leaving, and of them, the idle ones.
    old: u32,
    old_idle: BTreeSet<Pid>,
    /// So many of them are to end, because others have taken their places.
    replaced: u32,
}

impl Pool {
    pub(super) fn count(&self, state: State) -> u32 {
        self.counts[state as usize]
    }

    /// How many are in each state, as [`State::ALL`] has them.
    pub(super) fn counts(&self) -> [u32; State::ALL.len()] {
        self.counts
    }

    /// Children that are told to end, or have ended.
    pub(super) fn leaving(&self) -> u32 {
        self.count(State::Killed) + self.count(State::Gone)
    }

    /// The others.
    fn staying(&self) -> u32 {
        self.counts.iter().sum::<u32>() - self.leaving()
    }

    fn add(&mut self, pid: Pid, member: &Member) {
        self.counts[member.state as usize] += 1;
        if member.state == State::Idle {
            self.idle.insert(pid);
        }
        if member.is_old_and_idle() {
            self.old_idle.insert(pid);
        }
        self.old += u32::from(member.is_old_and_stays());
        self.replaced = self.replaced.min(self.old);
    }

    fn remove(&mut self, pid: Pid, member: &Member) {
        self.counts[member.state as usize] -= 1;
        if member.state == State::Idle {
            self.idle.remove(&pid);
        }
        if member.is_old_and_idle() {
            self.old_idle.remove(&pid);
        }
        self.old -= u32::from(member.is_old_and_stays());
    }
}

impl Service {
    pub(super) fn pool_state(&self, pid: Pid) -> Option<State> {
        self.children.get(&pid)?.pool_state()
    }

    /// The one place where a child of a pool and what the pool knows of it change, together.
    fn change_member(&mut self, pid: Pid, change: impl FnOnce(&mut Member)) {
        let member = self.children.get_mut(&pid).and_then(|c| c.member.as_mut());
        let (Some(member), Some(pool)) = (member, self.pool.as_deref_mut()) else {
            return;
        };
        pool.remove(pid, member);
        change(member);
        pool.add(pid, member);
        self.avail = pool.count(State::Idle);
    }

    /// A child does something else. Its deadline was for what it did before.
    pub(super) fn set_state(&mut self, cx: &mut Context, pid: Pid, to: State) {
        let from = self.pool_state(pid);
        self.change_member(pid, |member| member.change_state(to));
        if from == Some(State::Ordered) {
            self.order_is_over(cx, pid);
        }
        if let Some(child) = self.children.get_mut(&pid) {
            (child.busy_since, child.leave_since) = (None, None);
        }
        self.set_deadline(cx, pid, None);
        self.touch(cx);
    }

    /// A new child has some time to get ready.
    pub(super) fn join_pool(&mut self, cx: &mut Context, pid: Pid) {
        if let Some(pool) = &mut self.pool {
            pool.add(pid, &Member::default());
        }
        self.set_deadline(cx, pid, Some(cx.now + START_TIME));
    }

    /// A child has ended.
    pub(super) fn leave_pool(&mut self, cx: &mut Context, pid: Pid, member: &Member) {
        if let Some(pool) = &mut self.pool {
            pool.remove(pid, member);
            pool.replaced = pool.replaced.min(pool.old);
            self.avail = pool.count(State::Idle);
        }
        if member.state == State::Ordered {
            self.order_is_over(cx, pid);
        }
    }

    /// The service is removed.
    pub(super) fn end_pool(&mut self, cx: &mut Context) {
        if let Some(pool) = &mut self.pool {
            pool.ping_at = None;
            for pid in self.children.keys().copied().collect::<Vec<_>>() {
                self.set_state(cx, pid, State::Killed);
            }
        }
    }

    /// A reload: all children are to be replaced, a few at a time.
    pub(super) fn mark_old(&mut self, cx: &mut Context) {
        if let Some(pool) = &mut self.pool {
            pool.replaced = 0;
        }
        for pid in self.children.keys().copied().collect::<Vec<_>>() {
            self.change_member(pid, |member| member.old = true);
            if let Some(child) = self.children.get_mut(&pid) {
                if child.pool_state() == Some(State::Busy) {
                    // Its client's time is limited from now on; the next one's is not.
                    child.leave_since.get_or_insert(cx.now);
                }
            }
        }
        self.update_deadlines(cx);
        self.touch(cx);
    }

    /// Whether the pool agrees with its children.
    pub(super) fn check_pool(&self) -> Result<(), String> {
        let Some(pool) = &self.pool else {
            return Ok(());
        };
        let mut found = Pool::default();
        for (&pid, child) in &self.children {
            child
                .member
                .iter()
                .for_each(|member| found.add(pid, member));
        }
        let ordered = |&(_, pid)| self.pool_state(pid) == Some(State::Ordered);
        let orders = &pool.outstanding;
        require! {
            "others are in each state": found.counts == pool.counts;
            "others are idle": found.idle == pool.idle;
            "others are old": found.old == pool.old && pool.replaced <= pool.old;
            "others are old and idle": found.old_idle == pool.old_idle;
            "a client waits although a child is idle": !pool.overloaded || pool.idle.is_empty();
            "an order stands for a client and is none": orders.iter().all(ordered);
            "orders are not sorted by time": orders.iter().is_sorted_by_key(|(until, _)| until);
        }
        Ok(())
    }
}
