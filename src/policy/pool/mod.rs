//! Pools whose children accept when they are told to (`accept = "ordered"`), for children that are
//! expensive to start: what a pool knows of its children.

pub(super) mod ordered;
pub(super) mod warm;

use std::collections::{BTreeSet, VecDeque};

use serde_derive::{Deserialize, Serialize};

use super::child::{Counted, State};
use super::service::{Context, require};
use super::{Pid, Service, Time};
pub(super) use ordered::START_TIME;

/// What is known of the children of one service that are told when to accept, as a whole.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Pool {
    #[serde(skip)]
    pub(super) idle: BTreeSet<Pid>,
    #[serde(skip)]
    pub(super) starting: u32,
    /// Children with an order and without an answer, the oldest first, and the time until which each
    /// order counts as an answer to one client that waits.
    outstanding: VecDeque<(Time, Pid)>,
    /// An order was answered or its time is over: look again how many clients wait.
    recheck: bool,
    /// A connection waits, and no child is idle.
    pub(super) overloaded: bool,
    /// The kernel refused to watch the listeners, and is asked again after a throttle.
    pub(super) watch_failed: bool,
    /// Children from before the last reload that are not leaving.
    #[serde(skip)]
    pub(super) old: u32,
    /// How many old children are to end, because new ones have taken their places.
    pub(super) replaced: u32,
}

impl Service {
    pub(super) fn pool_state(&self, pid: Pid) -> Option<State> {
        self.children.get(&pid)?.pool_state()
    }

    /// A reload: all children are to be replaced, a few at a time.
    pub(super) fn mark_old(&mut self, cx: &mut Context) {
        if let Some(pool) = &mut self.pool {
            pool.replaced = 0;
        }
        self.change_all(cx, |child, now| {
            child.old = true;
            if child.state == State::Busy && child.is_heard() {
                // Its client's time is limited from now on; the next one's is not.
                child.leave_since.get_or_insert(now);
            }
        });
    }

    /// Whether the pool agrees with its children.
    pub(super) fn check_pool(&self, pool: &Pool) -> Result<(), String> {
        let of = |is_counted: fn(Counted) -> bool| {
            let children = self.children.iter();
            children.filter_map(move |(&pid, child)| is_counted(child.counted()).then_some(pid))
        };
        let orders = &pool.outstanding;
        require! {
            "others are idle": pool.idle.iter().copied().eq(of(|child| child.available));
            "others are starting": of(|child| child.starting).count() as u32 == pool.starting;
            "others are old": of(|child| child.old).count() as u32 == pool.old;
            "more were replaced than are old": pool.replaced <= pool.old;
            "a client waits although a child is idle": !pool.overloaded || pool.idle.is_empty();
            "an order stands for a client and is none": orders
                .iter()
                .all(|&(_, pid)| self.pool_state(pid) == Some(State::Ordered));
            "orders are not sorted by time": orders.iter().is_sorted_by_key(|(until, _)| until);
        }
        Ok(())
    }
}
