//! Pools whose children accept when they are told to, for children that are expensive to start.
//!
//! A child is starting, idle, ordered, busy, killed, or gone. A connection that waits goes to the
//! idle child with the lowest pid: the same few children serve while the load is low, and the rest
//! stay out of the caches. No child is idle: the pool is overloaded, nobody watches the listeners,
//! and the first child that turns idle is ordered at once.
//!
//! As many children are ordered as clients wait, so an order that is not answered stands for one of
//! them, and holds the next one back. Where the system does not count who waits, it says one, and
//! one order follows the other. An order stands for a client no longer than [`PATIENCE`]; then
//! whoever still waits is given to another child. So a child that is stuck costs one client that
//! long, and no other anything. What it may cost is an order for nothing, when the slow child takes
//! the client after all: the second one finds nobody (the listeners do not block), answers busy and
//! then idle, and all is as before.
//!
//! The rules are those of SpamAssassin's `SpamdForkScaling.pm`, whose parent waits for the answer.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::record::Rogue;
use super::timers::Timer;
use super::{Action, ExitStatus, Pid, Record, Service, ServiceId, Signal, Table, Time};
use crate::protocol::pool::{Order, Report};
use crate::seldom::usual;

/// How long an order that is not answered holds the next one back: many times what a child needs
/// to answer, and nothing that a client notices.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// How long a child may take to get ready. It has nothing to do with how soon one that is ready
/// answers: a short [`reply_timeout`](crate::config::Pool::reply_timeout) must not end all children
/// that take long to start, or there would never be any.
pub(super) const START_TIME: Duration = Duration::from_secs(300);

/// What a child of an ordered pool does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It has not said anything yet.
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
        match self {
            Self::Starting => 'S',
            Self::Idle => 'I',
            Self::Ordered => 'A',
            Self::Busy => 'B',
            Self::Killed => 'K',
            Self::Gone => 'Z',
        }
    }

    /// Whether the child is expected to end, and to do nothing else.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Killed | Self::Gone)
    }
}

/// A child as its pool knows it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) state: State,
    /// It was there before the last reload.
    stale: bool,
    /// What it did before its channel ended.
    before: State,
}

impl Member {
    pub(super) fn new() -> Self {
        Self {
            state: State::Starting,
            stale: false,
            before: State::Starting,
        }
    }

    /// Whether its end is no wonder, and how it ended.
    pub(super) fn was_told(&self, status: ExitStatus) -> bool {
        // SIGINT, SIGTERM and SIGKILL, the numbers of which are the same on every system.
        self.state == State::Killed && matches!(status, ExitStatus::Signal(2 | 15 | 9))
    }

    /// What it did last, whether its channel has ended since or not.
    fn last(&self) -> State {
        match self.state {
            State::Gone => self.before,
            state => state,
        }
    }

    /// Whether it never was ready.
    pub(super) fn was_starting(&self) -> bool {
        self.last() == State::Starting
    }

    /// Whether a client is lost with it, as with one that had its client for too long.
    pub(super) fn had_client(&self, overstayed: bool) -> bool {
        !self.stale && (overstayed || self.last() == State::Busy)
    }

    /// Whether its end, before it has served anybody, says something about the command. One that
    /// was ready and had no client has started well, and somebody ended it.
    pub(super) fn is_telling(&self) -> bool {
        !self.stale && !matches!(self.last(), State::Idle | State::Killed)
    }
}

/// The children of one service that are told when to accept.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// How many are in each state.
    counts: [u32; State::ALL.len()],
    idle: BTreeSet<Pid>,
    /// The orders that stand for a client who waits, and until when; the oldest first.
    fresh: VecDeque<(Time, Pid)>,
    /// One of them was answered, or came to nothing: it is time to look again who waits.
    news: bool,
    /// A connection waits, and nobody is idle.
    pub(super) overloaded: bool,
    /// The kernel refused to watch the listeners, and is asked again later.
    pub(super) blind: bool,
    pub(super) ping_at: Option<Time>,
    /// Those from before the last reload that are not leaving, and of them, the idle ones.
    pub(super) stale: u32,
    stale_idle: BTreeSet<Pid>,
    /// So many of them are to end, because others have taken their places.
    pub(super) replaced: u32,
}

usual!(Pool);

impl Pool {
    pub(super) fn count(&self, state: State) -> u32 {
        self.counts[state as usize]
    }

    /// How many are in each state, as [`State::ALL`] has them.
    pub(super) fn counts(&self) -> [u32; State::ALL.len()] {
        self.counts
    }

    /// Whether there never was a child in it, or none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.counts == [0; State::ALL.len()] && !self.overloaded
    }

    /// Those that are told to leave, or have left.
    pub(super) fn leaving(&self) -> u32 {
        self.count(State::Killed) + self.count(State::Gone)
    }

    /// The others.
    pub(super) fn staying(&self) -> u32 {
        self.counts.iter().sum::<u32>() - self.leaving()
    }

    /// Whether the next connection is to be heard of.
    pub(super) fn wants_clients(&self) -> bool {
        (self.fresh.is_empty() || self.news) && !self.overloaded && !self.blind
    }

    /// The idle child whose turn it is last.
    pub(super) fn last_idle(&self) -> Option<Pid> {
        self.idle.last().copied()
    }

    /// An idle child from before the last reload.
    pub(super) fn stale_idle(&self) -> Option<Pid> {
        self.stale_idle.last().copied()
    }

    /// The service is no more.
    pub(super) fn retire(&mut self) {
        self.fresh.clear();
        self.ping_at = None;
    }

    pub(super) fn patience_ends(&self) -> Option<Time> {
        Some(self.fresh.front()?.0)
    }
}

impl Table {
    /// A child of an ordered pool, and its service.
    fn member(&mut self, pid: Pid) -> Option<(ServiceId, &mut Member, &mut Service)> {
        let child = self.children.get_mut(&pid)?;
        let id = child.service;
        let service = self.services.get_mut(id.index())?.as_mut()?;
        Some((id, child.member.as_mut()?, service))
    }

    /// What a child of an ordered pool does; nothing for others.
    pub fn state_of(&self, pid: Pid) -> Option<State> {
        Some(self.children.get(&pid)?.member.as_ref()?.state)
    }

    /// The one place where a child's state and all that depends on it change, together.
    pub(super) fn set_state(&mut self, pid: Pid, to: State) {
        let Some((id, member, service)) = self.member(pid) else {
            return;
        };
        let pool = &mut service.pool;
        let from = std::mem::replace(&mut member.state, to);
        pool.counts[from as usize] -= 1;
        pool.counts[to as usize] += 1;
        if from == State::Idle {
            pool.idle.remove(&pid);
            pool.stale_idle.remove(&pid);
        }
        if to == State::Idle {
            pool.idle.insert(pid);
            if member.stale {
                pool.stale_idle.insert(pid);
            }
        }
        if member.stale && to.is_leaving() && !from.is_leaving() {
            pool.stale -= 1;
            pool.replaced = pool.replaced.min(pool.stale);
        }
        if from == State::Ordered {
            self.order_is_over(id, pid);
        }
        if let Some(child) = self.children.get_mut(&pid) {
            (child.busy_since, child.dismissed) = (None, None);
        }
        self.set_due(pid, None);
        match to {
            State::Idle => self.avail_more(id, pid),
            _ => self.avail_less(id, pid),
        }
        self.touch(id);
    }

    /// The child has answered, or will not: its order stands for nobody any more.
    fn order_is_over(&mut self, id: ServiceId, pid: Pid) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        let pool = &mut service.pool;
        // Answers come in the order of the orders, nearly.
        let at = pool.fresh.iter().position(|(_, ordered)| *ordered == pid);
        let Some(at) = at else {
            return;
        };
        pool.fresh.remove(at);
        pool.news = true;
        if let Some(next) = pool.patience_ends().filter(|_| at == 0) {
            self.timers.add(next, Timer::Patience(id));
        }
    }

    /// Takes in a new child, which has some time to get ready.
    pub(super) fn count_member(&mut self, now: Time, pid: Pid) {
        if let Some((id, member, service)) = self.member(pid) {
            service.pool.counts[member.state as usize] += 1;
            self.set_due(pid, Some(now + START_TIME));
            self.touch(id);
        }
    }

    /// Forgets a child, whatever it did last.
    pub(super) fn discount_member(&mut self, pid: Pid) {
        self.set_state(pid, State::Gone);
        if let Some((_, _, service)) = self.member(pid) {
            service.pool.counts[State::Gone as usize] -= 1;
        }
    }

    /// So many clients wait who have to be given to somebody, those that orders stand for already
    /// among them.
    pub(super) fn give_to_idle(
        &mut self,
        now: Time,
        id: ServiceId,
        clients: u32,
        out: &mut Vec<Action>,
    ) {
        while let Some(service) = self.service_mut(id) {
            let pool = &mut service.pool;
            pool.news = false;
            let left = clients as usize > pool.fresh.len();
            let lowest = pool.idle.first().copied();
            pool.overloaded = left && lowest.is_none();
            match lowest.filter(|_| left) {
                Some(pid) => self.order(now, id, pid, out),
                None => break,
            }
        }
        self.touch(id);
    }

    fn order(&mut self, now: Time, id: ServiceId, pid: Pid, out: &mut Vec<Action>) {
        self.set_state(pid, State::Ordered);
        let until = now + PATIENCE;
        if let Some(service) = self.service_mut(id) {
            let oldest = service.pool.fresh.is_empty();
            service.pool.fresh.push_back((until, pid));
            if oldest {
                self.timers.add(until, Timer::Patience(id));
            }
        }
        let order = Order::Accept;
        out.push(Action::Order { pid, order });
    }

    /// Children have not answered yet; others need not wait for them.
    pub(super) fn patience_ended(&mut self, now: Time, id: ServiceId) {
        while let Some(service) = self.service_mut(id) {
            let timeout = service.config.pool.reply_timeout;
            let oldest = service.pool.fresh.front().copied();
            let Some((until, pid)) = oldest.filter(|(until, _)| *until <= now) else {
                // The next order's patience, where that was not set before.
                let next = service.pool.patience_ends();
                if let Some(at) = next {
                    self.timers.add(at, Timer::Patience(id));
                }
                break;
            };
            service.pool.fresh.pop_front();
            service.pool.news = true;
            self.set_due(pid, Some(until - PATIENCE + timeout));
        }
        self.touch(id);
    }

    /// A child said what it does.
    pub(super) fn said(&mut self, now: Time, pid: Pid, report: Report, out: &mut Vec<Action>) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        let Some(member) = &child.member else {
            return;
        };
        match (member.state, report) {
            (State::Starting, Report::Idle) => {
                let fresh = !member.stale;
                self.turned_idle(now, pid, fresh, out);
            }
            (State::Busy, Report::Idle) => {
                child.uses = child.uses.saturating_add(1);
                let id = child.service;
                self.served(id);
                self.turned_idle(now, pid, false, out);
            }
            (State::Ordered, Report::Busy) => self.turned_busy(now, pid),
            // Once more is no harm.
            (State::Idle, Report::Idle) | (State::Busy, Report::Busy) => {}
            (State::Killed | State::Gone, _) => {}
            (state @ State::Ordered, Report::Idle)
            | (state @ (State::Starting | State::Idle), Report::Busy) => {
                self.rogue(now, pid, Rogue::OutOfTurn { state, report }, out);
            }
        }
    }

    fn turned_busy(&mut self, now: Time, pid: Pid) {
        self.set_state(pid, State::Busy);
        if let Some(child) = self.children.get_mut(&pid) {
            child.take_client(now);
            let id = child.service;
            self.count_client(id);
        }
        self.reckon(pid);
    }

    fn turned_idle(&mut self, now: Time, pid: Pid, new: bool, out: &mut Vec<Action>) {
        self.set_state(pid, State::Idle);
        let Some((id, _, service)) = self.member(pid) else {
            return;
        };
        let pool = &mut service.pool;
        if new && pool.replaced < pool.stale {
            pool.replaced += 1;
        }
        if pool.overloaded {
            // One of those who wait, beside those that orders stand for.
            let clients = pool.fresh.len() as u32 + 1;
            self.give_to_idle(now, id, clients, out);
        }
    }

    /// A child said something that nobody understands.
    pub(super) fn babbled(&mut self, now: Time, pid: Pid, letter: u8, out: &mut Vec<Action>) {
        self.rogue(now, pid, Rogue::Unknown { letter }, out);
    }

    /// A child cannot be told anything.
    pub(super) fn unwritable(&mut self, now: Time, pid: Pid, why: String, out: &mut Vec<Action>) {
        self.rogue(now, pid, Rogue::Unwritable { why }, out);
    }

    /// A child's channel has ended, as it does a moment before the child's end is heard of. One
    /// that closes it and lives on can never be told anything.
    pub(super) fn hung_up(&mut self, now: Time, pid: Pid, out: &mut Vec<Action>) {
        let kill_time = self.kill_time;
        let Some((_, member, service)) = self.member(pid).filter(|(_, m, _)| !m.state.is_leaving())
        else {
            return;
        };
        let kill_at = now + service.grace(kill_time);
        member.before = member.state;
        self.set_state(pid, State::Gone);
        self.set_due(pid, Some(kill_at));
        out.push(Action::HangUp { pid });
    }

    /// Ends a child that does not keep to the rules. Who waits for it is given to another.
    pub(super) fn rogue(&mut self, now: Time, pid: Pid, how: Rogue, out: &mut Vec<Action>) {
        let Some((_, _, service)) = self.member(pid).filter(|(_, m, _)| !m.state.is_leaving())
        else {
            return;
        };
        let service = service.config.clone();
        out.push(Action::Log(Record::Rogue { service, pid, how }));
        self.end_member(now, pid, out);
    }

    /// A child's service is no more.
    pub(super) fn retire(&mut self, pid: Pid, out: &mut Vec<Action>) {
        if self.member(pid).is_some() {
            self.set_state(pid, State::Killed);
            out.push(Action::HangUp { pid });
        }
    }

    /// Tells a child to end, in two ways: one that does not listen to one may listen to the other.
    pub(super) fn end_member(&mut self, now: Time, pid: Pid, out: &mut Vec<Action>) {
        let kill_time = self.kill_time;
        let grace = self
            .member(pid)
            .map(|(_, _, service)| service.grace(kill_time));
        self.set_state(pid, State::Killed);
        self.set_due(pid, grace.map(|grace| now + grace));
        let signal = Signal::Int;
        out.extend([Action::Signal { pid, signal }, Action::HangUp { pid }]);
    }

    /// Tells the children that the master lives, and sets the next time.
    pub(super) fn ping(&mut self, now: Time, id: ServiceId, out: &mut Vec<Action>) {
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        let order = Order::Ping;
        for &pid in &service.children {
            let member = self.children.get(&pid).and_then(|c| c.member.as_ref());
            if member.is_some_and(|m| !m.state.is_leaving()) {
                out.push(Action::Order { pid, order });
            }
        }
        let next = now + service.config.pool.ping_interval;
        service.pool.ping_at = Some(next);
        self.timers.add(next, Timer::Ping(id));
    }

    /// Begins the pings, or goes on with another interval: reloads must not put them off for ever.
    pub(super) fn start_pings(&mut self, now: Time, id: ServiceId) {
        let Some(service) = self.service_mut(id) else {
            return;
        };
        if !service.config.is_ordered() {
            if let Some(pool) = service.pool.changed() {
                pool.ping_at = None;
            }
            return;
        }
        let next = now + service.config.pool.ping_interval;
        let next = service.pool.ping_at.map_or(next, |before| before.min(next));
        service.pool.ping_at = Some(next);
        self.timers.add(next, Timer::Ping(id));
    }

    /// A reload: all children are to be replaced, a few at a time. Where the service has become
    /// one whose children share, nobody takes their places in the pool.
    pub(super) fn outdate(&mut self, now: Time, id: ServiceId) {
        let Some(service) = self.services[id.index()].as_mut() else {
            return;
        };
        let Some(pool) = service.pool.changed() else {
            return;
        };
        for pid in &service.children {
            let Some(child) = self.children.get_mut(pid) else {
                continue;
            };
            let Some(member) = child.member.as_mut() else {
                continue;
            };
            member.stale = true;
            if member.state == State::Busy {
                // Its client's time is limited from now on; the next one's is not.
                child.dismissed.get_or_insert(now);
            }
        }
        pool.stale = pool.staying();
        pool.stale_idle.clone_from(&pool.idle);
        pool.replaced = 0;
        if !service.config.is_ordered() {
            pool.replaced = pool.stale;
            pool.overloaded = false;
        }
        self.touch(id);
    }

    /// Whether the pool's books agree with each other.
    pub(super) fn check_pool(&self, service: &Service) -> Result<(), String> {
        let pool = &service.pool;
        let members = service.children.iter().filter_map(|pid| {
            let member = self.children[pid].member.as_ref()?;
            Some((*pid, member))
        });
        let members: Vec<_> = members.collect();
        let with = |wanted: &dyn Fn(&Member) -> bool| {
            let pids = members.iter().filter(|(_, m)| wanted(m));
            pids.map(|(pid, _)| *pid).collect::<BTreeSet<Pid>>()
        };
        for state in State::ALL {
            let found = with(&|m| m.state == state).len();
            if found as u32 != pool.count(state) {
                return Err(format!("{found} are {state:?}, not {}", pool.count(state)));
            }
        }
        if with(&|m| m.state == State::Idle) != pool.idle {
            return Err("others are idle".into());
        }
        if with(&|m| m.stale && m.state == State::Idle) != pool.stale_idle {
            return Err("others are idle and stale".into());
        }
        if with(&|m| m.stale && !m.state.is_leaving()).len() as u32 != pool.stale {
            return Err("others are stale".into());
        }
        if pool.overloaded && !pool.idle.is_empty() {
            return Err("a client waits although a child is idle".into());
        }
        let ordered = |pid| self.state_of(pid) == Some(State::Ordered);
        if !pool.fresh.iter().all(|(_, pid)| ordered(*pid)) {
            return Err("an order stands for a client and is none".into());
        }
        if !pool.fresh.iter().is_sorted_by_key(|(until, _)| until) {
            return Err("orders are not in their order".into());
        }
        Ok(())
    }
}
