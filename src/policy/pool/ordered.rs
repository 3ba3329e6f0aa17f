//! Which child accepts.
//!
//! A child is starting, idle, ordered, busy, killed, or gone. A connection that waits goes to the
//! idle child with the lowest pid: the same few children serve while the load is low, and the rest
//! stay out of the caches. When no child is idle, the pool is overloaded: its listeners are not
//! watched, and the first child that turns idle is ordered at once.
//!
//! As many children are ordered as clients wait, so an order that is not answered stands for one of
//! them, and holds the next one back. Where the system does not count the clients, it reports one,
//! and one order follows the other. An order stands for a client no longer than [`ORDER_TIMEOUT`];
//! then a client that still waits is given to another child. So a stuck child costs one client that
//! long, and others nothing. It may cost an order for nothing, when the slow child takes the client
//! after all: the second child finds no client (the listeners do not block), answers busy and then
//! idle, and all is as before.
//!
//! The rules are those of SpamAssassin's `SpamdForkScaling.pm`, whose parent waits for the answer.

use std::time::Duration;

use super::{Pool, State};
use crate::policy::service::Context;
use crate::policy::timers::Timer;
use crate::policy::{Action, Kind, Pid, Rogue, Service, Signal, Time};
use crate::protocol::pool::{Order, Report};

/// How long an order that is not answered holds the next one back: many times what a child needs
/// to answer, and nothing that a client notices.
pub(in crate::policy) const ORDER_TIMEOUT: Duration = Duration::from_millis(50);

/// How long a child may take to get ready. It has nothing to do with how soon one that is ready
/// answers: a short [`reply_timeout`](crate::config::Pool::reply_timeout) must not end all children
/// that take long to start, or there would never be any.
pub(in crate::policy) const START_TIME: Duration = Duration::from_secs(300);

impl Pool {
    /// Whether the next connection is to be reported.
    pub(in crate::policy) fn wants_clients(&self) -> bool {
        (self.outstanding.is_empty() || self.recheck) && !self.overloaded && !self.watch_failed
    }

    /// When the oldest outstanding order no longer stands for a client.
    pub(in crate::policy) fn order_timeout(&self) -> Option<Time> {
        Some(self.outstanding.front()?.0)
    }

    /// The idle child to order, where a client is left beside those that orders stand for.
    fn next_to_order(&mut self, clients: u32) -> Option<Pid> {
        self.recheck = false;
        let left = clients as usize > self.outstanding.len();
        let lowest = self.idle.first().copied();
        self.overloaded = left && lowest.is_none();
        lowest.filter(|_| left)
    }
}

impl Service {
    /// So many clients wait, including those that outstanding orders stand for.
    pub(in crate::policy) fn order_idle(&mut self, cx: &mut Context, clients: u32) {
        while let Some(pid) = self.pool.as_mut().and_then(|p| p.next_to_order(clients)) {
            self.order(cx, pid);
        }
        self.touch(cx);
    }

    fn order(&mut self, cx: &mut Context, pid: Pid) {
        self.set_state(cx, pid, State::Ordered);
        let until = cx.now + ORDER_TIMEOUT;
        if let Some(pool) = &mut self.pool {
            if pool.outstanding.is_empty() {
                cx.set_timer(until, Timer::OrderTimeout);
            }
            pool.outstanding.push_back((until, pid));
        }
        let order = Order::Accept;
        cx.out.push(Action::Order { pid, order });
    }

    /// The child has answered, or will not: its order no longer stands for a client.
    pub(super) fn order_is_over(&mut self, cx: &mut Context, pid: Pid) {
        let Some(pool) = &mut self.pool else {
            return;
        };
        // Answers come in the order of the orders, nearly.
        let at = pool.outstanding.iter().position(|(_, of)| *of == pid);
        let Some(at) = at else {
            return;
        };
        pool.outstanding.remove(at);
        pool.recheck = true;
        if let Some(next) = pool.order_timeout().filter(|_| at == 0) {
            cx.set_timer(next, Timer::OrderTimeout);
        }
    }

    /// Children have not answered yet; others need not wait for them.
    pub(in crate::policy) fn orders_timed_out(&mut self, cx: &mut Context) {
        let timeout = self.config.pool().reply_timeout;
        while let Some(pool) = &mut self.pool {
            let Some(&(until, pid)) = pool.outstanding.front() else {
                break;
            };
            if until > cx.now {
                cx.set_timer(until, Timer::OrderTimeout);
                break;
            }
            pool.outstanding.pop_front();
            pool.recheck = true;
            self.set_deadline(cx, pid, Some(until - ORDER_TIMEOUT + timeout));
        }
        self.touch(cx);
    }

    /// A child reported what it does.
    pub(in crate::policy) fn pool_report(&mut self, cx: &mut Context, pid: Pid, report: Report) {
        let Some(child) = self.children.get_mut(&pid) else {
            return;
        };
        let Some(member) = child.member else {
            return;
        };
        match (member.state, report) {
            (State::Starting, Report::Idle) => self.turned_idle(cx, pid, !member.old),
            (State::Busy, Report::Idle) => {
                child.uses = child.uses.saturating_add(1);
                self.served();
                self.turned_idle(cx, pid, false);
            }
            (State::Ordered, Report::Busy) => self.turned_busy(cx, pid),
            // Once more is no harm.
            (State::Idle, Report::Idle) | (State::Busy, Report::Busy) => {}
            (State::Killed | State::Gone, _) => {}
            (state @ State::Ordered, Report::Idle)
            | (state @ (State::Starting | State::Idle), Report::Busy) => {
                self.end_rogue(cx, pid, Rogue::OutOfTurn(state, report));
            }
        }
    }

    fn turned_busy(&mut self, cx: &mut Context, pid: Pid) {
        self.set_state(cx, pid, State::Busy);
        if let Some(child) = self.children.get_mut(&pid) {
            child.take_client(cx.now);
            self.rare_mut().statistics.connections += 1;
        }
        self.update_deadline(cx, pid);
    }

    fn turned_idle(&mut self, cx: &mut Context, pid: Pid, new: bool) {
        self.set_state(cx, pid, State::Idle);
        let Some(pool) = &mut self.pool else {
            return;
        };
        if new && pool.replaced < pool.old {
            pool.replaced += 1;
        }
        if pool.overloaded {
            // One of the clients that wait, beside those that orders stand for.
            let clients = pool.outstanding.len() as u32 + 1;
            self.order_idle(cx, clients);
        }
    }

    /// A child's channel has ended, as it does a moment before the child's end is reported. A child
    /// that closes it and lives on can never be told anything.
    pub(in crate::policy) fn channel_closed(&mut self, cx: &mut Context, pid: Pid) {
        if self
            .pool_state(pid)
            .is_some_and(|state| !state.is_leaving())
        {
            self.set_state(cx, pid, State::Gone);
            self.give_grace(cx, pid);
            cx.close_channel(pid);
        }
    }

    /// Ends a child that does not keep to the rules. A client that waits for it is given to another.
    pub(in crate::policy) fn end_rogue(&mut self, cx: &mut Context, pid: Pid, how: Rogue) {
        if self
            .pool_state(pid)
            .is_some_and(|state| !state.is_leaving())
        {
            self.log_child(cx, pid, Kind::Rogue(how));
            self.end_member(cx, pid);
        }
    }

    /// Tells a child to end, in two ways: one that ignores the signal may read the end of its
    /// channel.
    pub(in crate::policy) fn end_member(&mut self, cx: &mut Context, pid: Pid) {
        self.kill_member(cx, pid);
        cx.signal(pid, Signal::Int);
        cx.close_channel(pid);
    }

    /// Counts no longer on a child that is about to be told to end.
    pub(in crate::policy) fn kill_member(&mut self, cx: &mut Context, pid: Pid) {
        self.set_state(cx, pid, State::Killed);
        self.give_grace(cx, pid);
    }

    /// The child is killed when it has not ended in time.
    fn give_grace(&mut self, cx: &mut Context, pid: Pid) {
        let at = cx.now + self.grace(cx.shared.kill_time);
        self.set_deadline(cx, pid, Some(at));
    }

    /// Tells the children that the master lives, and sets the next time.
    pub(in crate::policy) fn ping(&mut self, cx: &mut Context) {
        let order = Order::Ping;
        let staying = self.children.iter().filter(|(_, child)| child.is_heard());
        cx.out
            .extend(staying.map(|(&pid, _)| Action::Order { pid, order }));
        if let Some(pool) = &mut self.pool {
            pool.ping_at = None;
        }
        self.start_pings(cx);
    }

    /// Begins the pings, or goes on with another interval: reloads must not put them off for ever.
    pub(in crate::policy) fn start_pings(&mut self, cx: &mut Context) {
        if let Some(pool) = &mut self.pool {
            let next = cx.now + self.config.pool().ping_interval;
            let next = pool.ping_at.map_or(next, |before| before.min(next));
            pool.ping_at = Some(next);
            cx.set_timer(next, Timer::Ping);
        }
    }
}
