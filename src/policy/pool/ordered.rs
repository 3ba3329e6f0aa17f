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

use super::Pool;
use crate::policy::child::{Leaving, State};
use crate::policy::service::Context;
use crate::policy::timers::Timer;
use crate::policy::{Action, Kind, Pid, Rogue, Service, Signal};
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

    /// The idle child to order, if there are more clients than outstanding orders.
    fn next_to_order(&mut self, clients: u32) -> Option<Pid> {
        self.recheck = false;
        let left = clients as usize > self.outstanding.len();
        let lowest = self.idle.first().copied();
        self.overloaded = left && lowest.is_none();
        lowest.filter(|_| left)
    }
}

impl Service {
    /// Orders idle children to accept. The number of clients includes those of outstanding orders.
    pub(in crate::policy) fn order_idle(&mut self, cx: &mut Context, clients: u32) {
        while let Some(pid) = self.pool.as_mut().and_then(|p| p.next_to_order(clients)) {
            self.order(cx, pid);
        }
        self.touch(cx);
    }

    fn order(&mut self, cx: &mut Context, pid: Pid) {
        self.change(cx, pid, |child, _| child.state = State::Ordered);
        if let Some(pool) = &mut self.pool {
            pool.outstanding.push_back((cx.now + ORDER_TIMEOUT, pid));
        }
        self.update_order_timer(cx);
        let order = Order::Accept;
        cx.out.push(Action::Order { pid, order });
    }

    /// The child has answered, or will not: its order no longer stands for a client.
    pub(in crate::policy) fn order_is_over(&mut self, cx: &mut Context, pid: Pid) {
        if let Some(pool) = &mut self.pool {
            // Answers come in the order of the orders, nearly.
            if let Some(at) = pool.outstanding.iter().position(|(_, of)| *of == pid) {
                pool.outstanding.remove(at);
                pool.recheck = true;
            }
        }
        self.update_order_timer(cx);
    }

    /// The next order to time out is the oldest one.
    fn update_order_timer(&mut self, cx: &mut Context) {
        let oldest = self.pool.as_ref().and_then(|pool| pool.outstanding.front());
        let until = oldest.map(|(until, _)| *until);
        self.set_timer(cx, Timer::OrderTimeout, until);
    }

    /// Children have not answered yet; others need not wait for them.
    pub(in crate::policy) fn orders_timed_out(&mut self, cx: &mut Context) {
        while let Some(pool) = &mut self.pool {
            let oldest = pool.outstanding.front().copied();
            let Some((until, pid)) = oldest.filter(|(until, _)| *until <= cx.now) else {
                break;
            };
            pool.outstanding.pop_front();
            pool.recheck = true;
            self.change(cx, pid, |child, _| {
                child.since = Some(until - ORDER_TIMEOUT);
            });
        }
        self.update_order_timer(cx);
    }

    /// A child reported what it does.
    pub(in crate::policy) fn pool_report(&mut self, cx: &mut Context, pid: Pid, report: Report) {
        let Some(state) = self.pool_state(pid) else {
            return;
        };
        match (state, report) {
            (State::Starting | State::Busy, Report::Idle) => self.idle_again(cx, pid, state),
            (State::Ordered, Report::Busy) => self.turned_busy(cx, pid),
            // Once more is no harm.
            (State::Idle, Report::Idle) | (State::Busy, Report::Busy) => {}
            (State::Killed | State::Gone, _) => {}
            (State::Ordered, Report::Idle) | (State::Starting | State::Idle, Report::Busy) => {
                self.end_rogue(cx, pid, Rogue::OutOfTurn(state, report));
            }
        }
    }

    /// A child has become idle. A new one takes the place of one from before the last reload.
    fn idle_again(&mut self, cx: &mut Context, pid: Pid, before: State) {
        self.turned_idle(cx, pid);
        let old = self.children.get(&pid).is_some_and(|child| child.old);
        let Some(pool) = &mut self.pool else {
            return;
        };
        if before == State::Starting && !old && pool.replaced < pool.old {
            pool.replaced += 1;
        }
        if pool.overloaded {
            // One more client waits than there are outstanding orders.
            let clients = pool.outstanding.len() as u32 + 1;
            self.order_idle(cx, clients);
        }
    }

    /// A child's channel has ended, as it does a moment before the child's end is reported. A child
    /// that closes it and lives on can never be told anything.
    pub(in crate::policy) fn channel_closed(&mut self, cx: &mut Context, pid: Pid) {
        if self.is_heard_in_pool(pid) {
            self.leave(cx, pid, Leaving::Gone);
            cx.close_channel(pid);
        }
    }

    fn is_heard_in_pool(&self, pid: Pid) -> bool {
        let child = self.children.get(&pid);
        child.is_some_and(|child| child.ordered && child.is_heard())
    }

    /// Ends a child that does not keep to the rules. A client that waits for it is given to another.
    pub(in crate::policy) fn end_rogue(&mut self, cx: &mut Context, pid: Pid, how: Rogue) {
        if self.is_heard_in_pool(pid) {
            self.log_child(cx, pid, Kind::Rogue(how));
            self.end_member(cx, pid, Leaving::Rogue);
        }
    }

    /// Tells a child to end, in two ways: one that ignores the signal may read the end of its
    /// channel.
    pub(in crate::policy) fn end_member(&mut self, cx: &mut Context, pid: Pid, why: Leaving) {
        self.leave(cx, pid, why);
        cx.signal(pid, Signal::Int);
        cx.close_channel(pid);
    }

    /// Tells the children that the master lives, and sets the next time.
    pub(in crate::policy) fn ping(&mut self, cx: &mut Context) {
        let order = Order::Ping;
        let staying = self.children.iter().filter(|(_, child)| child.is_heard());
        cx.out
            .extend(staying.map(|(&pid, _)| Action::Order { pid, order }));
        self.start_pings(cx);
    }

    /// Begins the pings, or goes on with another interval: reloads must not put them off for ever.
    pub(in crate::policy) fn start_pings(&mut self, cx: &mut Context) {
        if self.pool.is_some() {
            let next = cx.now + self.config.pool().ping_interval;
            let next = self.timer(Timer::Ping).map_or(next, |at| at.min(next));
            self.set_timer(cx, Timer::Ping, Some(next));
        }
    }
}
