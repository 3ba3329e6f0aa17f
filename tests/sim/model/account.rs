//! The master's view of a service and its children, according to the model.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{Action, Counts, Kind, Pid, Signal, Statistics, Time};

use super::{AT_ONCE, CLIENTS, HANGING_MAX, MINUTE, log};

/// A child, as the master knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its last report was "available", and it was not told to leave.
    pub idle: bool,
    pub leaving: bool,
    /// Its exec hangs.
    pub hanging: bool,
    pub used: bool,
    /// It has reported a client.
    pub had_client: bool,
    pub started: Time,
    pub generation: u32,
    /// When it reported that it has a client.
    pub busy_since: Option<Time>,
    pub told_to_leave: Option<Time>,
    pub ended: Ended,
}

/// Whether a child has exceeded its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ended {
    No,
    ByTerm(Time),
    ByKill,
}

impl Member {
    pub fn available(&self) -> bool {
        self.idle && !self.leaving
    }

    /// Whether it is told to leave, and idle: no client waits for it.
    pub fn departing(&self) -> bool {
        self.idle && self.leaving
    }

    /// Whether its end with status 0 says whether its service makes progress.
    pub fn is_judged(&self) -> bool {
        !self.had_client && !self.leaving
    }

    pub fn is_young(&self, now: Time) -> bool {
        now - self.started < AT_ONCE
    }

    /// When its time is over.
    pub fn due(&self, service: &Service, kill_time: Duration) -> Option<Time> {
        let request = self.busy_since.zip(service.limits().request_timeout);
        let leave = self.told_to_leave.zip(service.limits().stop_timeout);
        let grace = service.limits().stop_timeout.unwrap_or(kill_time);
        let still_there = self.busy_since.is_some() || self.told_to_leave.is_some();
        match self.ended {
            Ended::No => {
                let times = [request, leave].into_iter().flatten();
                times.map(|(since, time)| since + time).min()
            }
            Ended::ByTerm(at) => still_there.then_some(at + grace),
            Ended::ByKill => None,
        }
    }
}

/// The statistics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub peak: (u32, Option<Time>),
    pub all_in_use: bool,
    pub limit_reached: u64,
    pub clients: u64,
    pub started: u64,
    pub ended: u64,
    pub failed: u64,
    pub killed: u64,
}

impl Counted {
    pub fn compare(&self, stats: &Statistics) -> Result<(), String> {
        let children = (self.started, self.ended, self.failed, self.killed);
        let right = children == (stats.started, stats.ended, stats.failed, stats.killed)
            && self.clients == stats.connections
            && self.peak == (stats.peak, stats.peak_at)
            && self.limit_reached == stats.limit_reached;
        if right {
            Ok(())
        } else {
            Err(format!("counted {stats:?} instead of {self:?}"))
        }
    }
}

/// A service, as the master knows it.
#[derive(Debug)]
pub struct Account {
    pub service: Arc<Service>,
    pub members: BTreeMap<Pid, Member>,
    pub watched: bool,
    pub paused: bool,
    /// A requested child that has not been started yet.
    pub spawning: bool,
    /// The statistics.
    pub counted: Counted,
    pub throttled_until: Option<Time>,
    /// Starts are delayed, because of children that came to nothing or of `start_limit`.
    pub delayed_until: Option<Time>,
    /// Children in a row that came to nothing.
    pub in_vain: u32,
    /// The last line about a delay.
    pub delay_said: Option<Time>,
    /// The period of `start_limit`, and the starts in it.
    pub period: Option<(Time, u32)>,
    /// The last throttle time, until a success resets it.
    pub throttle: Option<Duration>,
    /// The last clients, and whether their child ended abnormally.
    pub clients: VecDeque<bool>,
    pub stress_until: Option<Time>,
    pub wake_at: Option<Time>,
    pub wake_waits: bool,
    /// For a removed service: when the remaining children are killed.
    pub kill_at: Option<Time>,
    pub killed: bool,
    pub warned_at: Option<Time>,
    pub at_limit: bool,
    /// Clients waited at the last look: the clients and children until then.
    pub seen: Option<u64>,
    pub stalled: bool,
    pub stall_said: Option<Time>,
    /// Clients waited at a look in this turn.
    pub looked: bool,
    /// The numbers of available and of all children in the last log line of a verbose master.
    pub said: Option<(usize, usize)>,
    /// The start of the interval for lines about bad reports, and the numbers of written and
    /// suppressed lines.
    pub counted_since: Option<Time>,
    pub written: u32,
    pub left_out: u64,
}

impl Account {
    pub fn new(service: Arc<Service>) -> Self {
        Self {
            wake_waits: waits(&service),
            service,
            members: BTreeMap::new(),
            watched: false,
            paused: false,
            spawning: false,
            counted: Counted::default(),
            throttled_until: None,
            delayed_until: None,
            in_vain: 0,
            delay_said: None,
            period: None,
            throttle: None,
            clients: VecDeque::new(),
            stress_until: None,
            wake_at: None,
            kill_at: None,
            killed: false,
            warned_at: None,
            at_limit: false,
            seen: None,
            stalled: false,
            stall_said: None,
            looked: false,
            said: None,
            counted_since: None,
            written: 0,
            left_out: 0,
        }
    }

    pub fn next_deadline(&self, kill_time: Duration) -> Option<Time> {
        let kill_at = self.kill_at.filter(|_| !self.killed);
        let stays = self.next_to_go(kill_time).map(|(at, _)| at);
        let deadlines = [
            self.throttled_until,
            self.delayed_until,
            self.stress_until,
            self.wake_at,
            kill_at,
            stays,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The child whose time is over first. The children of a removed service have the same time.
    pub fn next_to_go(&self, kill_time: Duration) -> Option<(Time, Pid)> {
        let open = self.kill_at.is_none();
        let members = self.members.iter().filter(|_| open);
        let due = members.filter_map(|(pid, m)| Some((m.due(&self.service, kill_time)?, *pid)));
        due.min()
    }

    /// The actions for a child whose time is over.
    pub fn end(&mut self, now: Time, pid: Pid) -> [Action; 2] {
        let service = self.service.clone();
        let member = self.members.get_mut(&pid).expect("a member");
        if member.ended != Ended::No {
            member.ended = Ended::ByKill;
            let signal = Signal::Kill;
            let record = log(&service, Some(pid), Kind::Overdue);
            return [record, Action::Signal { pid, signal }];
        }
        member.ended = Ended::ByTerm(now);
        let signal = Signal::Term;
        let request = member.busy_since.zip(service.limits().request_timeout);
        let kind = match (request, member.told_to_leave) {
            (Some((since, time)), _) if since + time <= now => Kind::TooLong(now - since),
            (_, since) => Kind::Lingering(now - since.expect("a child that was told to leave")),
        };
        [
            log(&service, Some(pid), kind),
            Action::Signal { pid, signal },
        ]
    }

    pub fn remember(&mut self, lost: bool) {
        self.clients.push_back(lost);
        if self.clients.len() > CLIENTS {
            self.clients.pop_front();
        }
    }

    pub fn lost(&self) -> u32 {
        self.clients.iter().filter(|lost| **lost).count() as u32
    }

    pub fn loses_too_many(&self) -> bool {
        let full = self.clients.len() == CLIENTS;
        let share = f64::from(self.lost()) / CLIENTS as f64;
        let percent = self.service.limits().crash_percent;
        full && percent.is_some_and(|percent| share >= f64::from(percent) / 100.0)
    }

    pub fn available(&self) -> usize {
        self.members.values().filter(|m| m.available()).count()
    }

    /// The numbers of available and of all children.
    pub fn counts(&self) -> (usize, usize) {
        (self.available(), self.members.len())
    }

    /// Counts the busy children at the end of a turn.
    pub fn take_stock(&mut self, now: Time) {
        let idle = |m: &&Member| m.idle;
        let busy = self.members.len() - self.members.values().filter(idle).count();
        let busy = busy as u32;
        if busy > self.counted.peak.0 {
            self.counted.peak = (busy, Some(now));
        }
        let all = self.service.max > 0 && busy >= self.service.max;
        let before = std::mem::replace(&mut self.counted.all_in_use, all);
        self.counted.limit_reached += u64::from(all && !before);
    }

    pub fn said_counts(&self) -> Counts {
        let (avail, total) = self.counts();
        Counts {
            avail: avail as u32,
            total: total as u32,
        }
    }

    pub fn log_counts(&self) -> Action {
        log(&self.service, None, Kind::Counts(self.said_counts()))
    }

    pub fn hanging(&self) -> u32 {
        self.members.values().filter(|m| m.hanging).count() as u32
    }

    pub fn throttled(&self) -> bool {
        self.throttled_until.is_some() || self.delayed_until.is_some()
    }

    /// Whether a failure throttles it.
    pub fn may_throttle(&self) -> bool {
        self.throttled_until.is_none() && self.kill_at.is_none()
    }

    pub fn open(&self) -> bool {
        !self.throttled() && self.kill_at.is_none()
    }

    /// Delays starts. The line about it, if one is due.
    pub fn delay(&mut self, now: Time, time: Duration, kind: Kind) -> Option<Action> {
        if self.kill_at.is_some() {
            return None;
        }
        self.delayed_until = self.delayed_until.max(Some(now + time));
        let due = self.delay_said.is_none_or(|at| now - at >= MINUTE);
        due.then(|| {
            self.delay_said = Some(now);
            log(&self.service, None, kind)
        })
    }

    /// Counts a start. If the limit allows none, how long that lasts.
    pub fn count_start(&mut self, now: Time) -> Option<Duration> {
        let limit = self.service.limits().start_limit?;
        let (began, starts) = match self.period {
            Some((began, starts)) if now - began < limit.period => (began, starts),
            _ => (now, 0),
        };
        self.period = Some((began, (starts + 1).min(limit.starts)));
        (starts == limit.starts).then(|| began + limit.period - now)
    }

    /// Whether `more` children can be started.
    pub fn has_room_for(&self, more: usize) -> bool {
        let max = self.service.max as usize;
        max == 0 || self.members.len() + more <= max
    }

    /// Whether a new client needs a new child.
    pub fn wants_clients(&self) -> bool {
        let may_start = !self.spawning && self.hanging() < HANGING_MAX && self.has_room_for(1);
        self.open() && !self.paused && self.available() == 0 && may_start
    }

    /// Whether clients may wait without the master's knowledge.
    pub fn may_hide_clients(&self) -> bool {
        !self.watched && !self.members.is_empty() && !self.paused && self.kill_at.is_none()
    }

    /// Whether clients wait at the limit, as far as the master knows: with a limit of one, only a
    /// look tells.
    pub fn is_full(&self) -> bool {
        self.makes_clients_wait() && (self.service.max > 1 || self.looked)
    }

    /// Whether clients must wait for a busy child.
    pub fn makes_clients_wait(&self) -> bool {
        let stay = self.members.values().filter(|m| !m.departing()).count();
        let max = self.service.max as usize;
        self.open() && !self.paused && self.available() == 0 && max > 0 && stay >= max
    }
}

pub fn waits(service: &Service) -> bool {
    service.wakeup.is_some_and(|wakeup| wakeup.conditional)
}
