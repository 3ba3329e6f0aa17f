//! One service, its children, and the means with which it handles events.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde_derive::{Deserialize, Serialize};

use super::child::Child;
use super::deadlines::Deadlines;
use super::pool::Pool;
use super::pool::warm::Pace;
use super::progress::Starts;
use super::recycle::{Jitter, RECYCLED_MAX};
use super::stress::Stall;
use super::throttle::BackoffState;
use super::timers::{self, Timers};
use super::{
    Action, Counts, Kind, Limiter, Pid, Record, ServiceId, Severity, Signal, Statistics, Time,
};
use crate::config;

/// Leaves a check with the first requirement that is not met, in words.
macro_rules! require {
    ($($what:literal: $met:expr;)+) => {
        $(if !$met { return Err($what.to_owned()); })+
    };
}
pub(super) use require;

/// One service: Postfix's `MASTER_SERV`.
#[derive(Debug)]
pub struct Service {
    pub(super) config: Arc<config::Service>,
    /// In boxes: a node of the map has room for eleven, and most services have one child or none.
    pub(super) children: BTreeMap<Pid, Box<Child>>,
    /// Children that wait for a client, as far as the master was told, and were not told to leave.
    pub(super) avail: u32,
    /// Children that were told to leave and wait for a client, which leave at once; in an ordered
    /// pool, all that leave.
    pub(super) departing: u32,
    /// Whether the runtime was asked to watch the listeners.
    pub(super) listening: bool,
    /// A spawn was asked for and is not answered yet.
    pub(super) spawning: bool,
    pub(super) paused: bool,
    /// A reload took the service away, and only its children are left.
    pub(super) removed: bool,
    /// Wake-ups wait for the first use (`?` in the table).
    pub(super) wakeup_waits: bool,
    /// Whether the service is in [`Context::touched`].
    pub(super) touched: bool,
    /// What a service with `accept = "ordered"` knows of its children.
    pub(super) pool: Option<Box<Pool>>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What most of thousands of services never have.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rare {
    #[serde(skip)]
    pub(super) timers: timers::Deadlines,
    pub(super) backoff: BackoffState,
    pub(super) starts: Starts,
    pub(super) stall: Stall,
    pub(super) limit_warned: Option<Time>,
    /// Limits the lines about bad reports.
    pub(super) warnings: Limiter,
    #[serde(skip)]
    pub(super) deadlines: Deadlines,
    pub(super) pace: Pace,
    /// Children that hang in exec.
    #[serde(skip)]
    pub(super) hanging: u32,
    /// Children that were told to leave for others to take their places.
    #[serde(skip)]
    pub(super) recycled: u32,
    pub(super) statistics: Statistics,
}

/// What all services of a table have in common, and what one of them is to know of a turn.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The service that does something now.
    pub(super) id: ServiceId,
    pub(super) now: Time,
    pub(super) out: Vec<Action>,
    pub(super) timers: Timers,
    /// The services that changed since they were settled.
    pub(super) touched: Vec<ServiceId>,
    /// The generation of the child that was started last.
    pub(super) generation: u32,
    /// Children of all services that hang in exec.
    pub(super) hanging: u32,
    /// The memory of a child that has ended, for the next one: a child for each connection asks the
    /// allocator for nothing.
    pub(super) spare: Option<Box<Child>>,
    /// How long children of removed services have to end.
    pub(super) kill_time: Time,
    pub(super) verbose: bool,
    /// Has the ages of children differ.
    pub(super) jitter: Jitter,
}

impl Context {
    pub(super) fn signal(&mut self, pid: Pid, signal: Signal) {
        self.out.push(Action::Signal { pid, signal });
    }

    pub(super) fn close_channel(&mut self, pid: Pid) {
        self.out.push(Action::CloseChannel { pid });
    }
}

impl Service {
    pub(super) fn new(config: Arc<config::Service>) -> Self {
        Self {
            wakeup_waits: config.wakeup.is_some_and(|w| w.conditional),
            pool: config.is_ordered().then(Box::default),
            config,
            children: BTreeMap::new(),
            avail: 0,
            departing: 0,
            listening: false,
            spawning: false,
            paused: false,
            removed: false,
            touched: false,
            rare: None,
        }
    }

    /// The table's line as it holds now.
    pub fn config(&self) -> &Arc<config::Service> {
        &self.config
    }

    /// Children that wait for a client, as far as the master was told.
    pub fn avail(&self) -> u32 {
        self.avail
    }

    /// All children, also those that were told to leave.
    pub fn total(&self) -> u32 {
        self.children.len() as u32
    }

    pub(super) fn counts(&self) -> Counts {
        let (avail, total) = (self.avail(), self.total());
        Counts { avail, total }
    }

    /// Whether the listeners are to be watched.
    pub fn listening(&self) -> bool {
        self.listening
    }

    /// Whether an operator has the service's clients wait.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// Whether a reload took the service away, and only its children are left.
    pub fn removed(&self) -> bool {
        self.removed
    }

    /// Whether clients are to be served: it is not throttled, paused or removed.
    pub(super) fn is_open(&self) -> bool {
        !self.throttled() && !self.paused && !self.removed
    }

    /// Whether the limit has room for a child beside `total` others.
    pub(super) fn has_room(&self, total: u32) -> bool {
        self.config.max == 0 || total < self.config.max
    }

    pub(super) fn rare(&self) -> &Rare {
        static NONE: LazyLock<Rare> = LazyLock::new(Rare::default);
        self.rare.as_deref().unwrap_or_else(|| &NONE)
    }

    /// Makes room for it; to change what may not be there, use [`Service::existing_rare`].
    pub(super) fn rare_mut(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(super) fn existing_rare(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Has [`Table::settle`](super::Table::settle) look at the service.
    pub(super) fn touch(&mut self, cx: &mut Context) {
        if !std::mem::replace(&mut self.touched, true) {
            cx.touched.push(cx.id);
        }
    }

    pub(super) fn log(&self, cx: &mut Context, kind: Kind) {
        self.write(cx, None, kind);
    }

    pub(super) fn log_child(&self, cx: &mut Context, pid: Pid, kind: Kind) {
        self.write(cx, Some(pid), kind);
    }

    fn write(&self, cx: &mut Context, child: Option<Pid>, kind: Kind) {
        if cx.verbose || kind.severity() != Severity::Detail {
            let record = Record::new(Some(self.config.clone()), child, kind);
            cx.out.push(Action::Log(record));
        }
    }

    /// Ends a turn: decides once whether the service is to have more children or fewer, and whether
    /// its listeners are to be watched.
    pub(super) fn settle(&mut self, cx: &mut Context) {
        self.touched = false;
        self.log_counts(cx);
        if self.keeps_warm() && !self.removed {
            self.adapt(cx);
        }
        self.update_watch(cx);
        self.update_stats(cx.now);
    }

    /// Whether the service agrees with its children.
    ///
    /// # Errors
    /// The first invariant that does not hold, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let count = |wanted: fn(&Child) -> bool| {
            self.children.values().filter(|child| wanted(child)).count() as u32
        };
        let own = self.children.iter();
        let own = own.filter_map(|(&pid, child)| Some((child.deadline?, pid)));
        let (stats, rare) = (self.stats(), self.rare());
        let ends = [stats.ended, stats.failed, stats.killed];
        let mut ends = ends.into_iter();
        let living = ends.try_fold(stats.started, u64::checked_sub);
        require! {
            "others are available": count(|child| child.counted().available) == self.avail;
            "others are departing": count(|child| child.counted().departing) == self.departing;
            "others hang in exec": count(Child::hangs) == rare.hanging;
            "others are recycled": count(|child| child.counted().recycled) == rare.recycled;
            "more are recycled at a time than may be": rare.recycled <= RECYCLED_MAX;
            "others are busy": count(Child::is_busy) == self.busy();
            "a child is of another kind": self.children.values().all(|child| child.ordered == self.pool.is_some());
            "children have other deadlines": own.collect::<Deadlines>() == rare.deadlines;
            "removed, and a child has a deadline": !self.removed || rare.deadlines.is_empty();
            "more are busy than ever were": self.busy() <= stats.peak;
            "more live than were started": living >= Some(u64::from(self.total()));
        }
        self.pool
            .as_ref()
            .map_or(Ok(()), |pool| self.check_pool(pool))?;
        self.check_counts()
    }

    /// The invariants that take the same time for any number of children.
    pub(super) fn check_counts(&self) -> Result<(), String> {
        let total = self.total();
        require! {
            "more wait than there are": self.avail + self.departing <= total;
            "watched or not, and should not be": self.listening == self.wants_clients();
            "removed, and throttled": !(self.removed && self.throttled());
            "removed, and nothing to wait for": !(self.removed && total == 0);
        }
        Ok(())
    }
}
