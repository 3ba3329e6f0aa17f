//! The world's own book of what the master was told, and of what it therefore owes.
//!
//! The rules are written down here a second time, from the manual and not from the code, and in
//! the most simple-minded way: for every fact, all that has to be done about it. Whatever the
//! table wishes must be owed, and whatever is owed must be wished.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{
    Action, Counts, Event, ExitStatus, Pid, Plan, Record, ServiceId, Signal, Stats, Table, Time,
};
use master::protocol::StatusReport;

const STRESS_TIME: Duration = Duration::from_secs(1000);
const WARNING_TIME: Duration = Duration::from_secs(1000);
/// So many lines a minute are said about what is wrong with a service's reports.
const BAD_REPORTS: u32 = 10;
/// So many clients are remembered.
const CLIENTS: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// A child, as the master knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub available: bool,
    pub leaving: bool,
    /// Told to leave while it was idle: it keeps nobody waiting.
    pub departing: bool,
    pub used: bool,
    pub generation: u32,
    /// It said then that it has a client.
    pub busy_since: Option<Time>,
    pub told_to_leave: Option<Time>,
    pub ended: Ended,
}

/// Whether somebody stayed too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ended {
    No,
    ByTerm(Time),
    ByKill,
}

impl Member {
    /// When it has stayed too long.
    pub fn due(&self, service: &Service, kill_time: Duration) -> Option<Time> {
        let request = self.busy_since.zip(service.care.request_timeout);
        let leave = self.told_to_leave.zip(service.care.stop_timeout);
        let grace = service.care.stop_timeout.unwrap_or(kill_time);
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

/// What is counted for who looks on.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    peak: (u32, Option<Time>),
    all_in_use: bool,
    limit_reached: u64,
    clients: u64,
    started: u64,
    ended: u64,
    failed: u64,
    killed: u64,
}

impl Counted {
    fn compare(&self, stats: &Stats) -> Result<(), String> {
        let children = (self.started, self.ended, self.failed, self.killed);
        let right = children == (stats.started, stats.ended, stats.failed, stats.killed)
            && self.clients == stats.connections
            && self.peak == (stats.peak, stats.peak_at)
            && self.limit_reached == stats.limit_reached;
        match right {
            true => Ok(()),
            false => Err(format!("counted {stats:?} instead of {self:?}")),
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
    /// What is counted for who looks on.
    counted: Counted,
    pub throttled_until: Option<Time>,
    /// How long that was, and has not been forgiven.
    pub throttle: Option<Duration>,
    /// The last clients, and whether they lost their child.
    pub clients: VecDeque<bool>,
    pub stress_until: Option<Time>,
    pub wake_at: Option<Time>,
    pub wake_waits: bool,
    /// Removed; who is still there then is killed.
    pub kill_at: Option<Time>,
    pub killed: bool,
    pub warned_at: Option<Time>,
    at_limit: bool,
    /// Available and all children, as a verbose master said last.
    said: Option<(usize, usize)>,
    /// Since when lines about bad reports are counted, and how many were written and left out.
    counted_since: Option<Time>,
    written: u32,
    left_out: u64,
}

impl Account {
    fn new(service: Arc<Service>) -> Self {
        Self {
            wake_waits: waits(&service),
            service,
            members: BTreeMap::new(),
            watched: false,
            paused: false,
            counted: Counted::default(),
            throttled_until: None,
            throttle: None,
            clients: VecDeque::new(),
            stress_until: None,
            wake_at: None,
            kill_at: None,
            killed: false,
            warned_at: None,
            at_limit: false,
            said: None,
            counted_since: None,
            written: 0,
            left_out: 0,
        }
    }

    fn next_deadline(&self, kill_time: Duration) -> Option<Time> {
        let kill_at = self.kill_at.filter(|_| !self.killed);
        let stays = self.next_to_go(kill_time).map(|(at, _)| at);
        let deadlines = [
            self.throttled_until,
            self.stress_until,
            self.wake_at,
            kill_at,
            stays,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Who has stayed for too long first. Those of a removed service go together.
    fn next_to_go(&self, kill_time: Duration) -> Option<(Time, Pid)> {
        let open = self.kill_at.is_none();
        let members = self.members.iter().filter(|_| open);
        let due = members.filter_map(|(pid, m)| Some((m.due(&self.service, kill_time)?, *pid)));
        due.min()
    }

    /// What has to be done about somebody who stays too long.
    fn end(&mut self, now: Time, pid: Pid) -> [Action; 2] {
        let service = self.service.clone();
        let member = self.members.get_mut(&pid).expect("a member");
        if member.ended != Ended::No {
            member.ended = Ended::ByKill;
            let signal = Signal::Kill;
            let record = Record::Overdue { service, pid };
            return [Action::Log(record), Action::Signal { pid, signal }];
        }
        member.ended = Ended::ByTerm(now);
        let signal = Signal::Term;
        let request = member.busy_since.zip(service.care.request_timeout);
        let record = match (request, member.told_to_leave) {
            (Some((since, time)), _) if since + time <= now => Record::TooLong {
                service,
                pid,
                age: now - since,
            },
            (_, since) => Record::Lingering {
                service,
                pid,
                age: now - since.expect("who was told to leave"),
            },
        };
        [Action::Log(record), Action::Signal { pid, signal }]
    }

    fn remember(&mut self, lost: bool) {
        self.clients.push_back(lost);
        if self.clients.len() > CLIENTS {
            self.clients.pop_front();
        }
    }

    fn lost(&self) -> u32 {
        self.clients.iter().filter(|lost| **lost).count() as u32
    }

    fn loses_too_many(&self) -> bool {
        let full = self.clients.len() == CLIENTS;
        let share = f64::from(self.lost()) / CLIENTS as f64;
        let percent = self.service.care.crash_percent;
        full && percent.is_some_and(|percent| share >= f64::from(percent) / 100.0)
    }

    pub fn available(&self) -> usize {
        self.members.values().filter(|m| m.available).count()
    }

    /// The available children and all of them.
    fn counts(&self) -> (usize, usize) {
        (self.available(), self.members.len())
    }

    /// Counts those that have a client, at the end of a turn.
    fn take_stock(&mut self, now: Time) {
        let idle = |m: &&Member| m.available || m.departing;
        let busy = self.members.len() - self.members.values().filter(idle).count();
        let busy = busy as u32;
        if busy > self.counted.peak.0 {
            self.counted.peak = (busy, Some(now));
        }
        let all = self.service.max > 0 && busy >= self.service.max;
        let before = std::mem::replace(&mut self.counted.all_in_use, all);
        self.counted.limit_reached += u64::from(all && !before);
    }

    fn said_counts(&self) -> Counts {
        let (avail, total) = self.counts();
        Counts {
            avail: avail as u32,
            total: total as u32,
        }
    }

    fn counted(&self) -> Record {
        Record::Counts {
            service: self.service.clone(),
            counts: self.said_counts(),
        }
    }

    fn open(&self) -> bool {
        self.throttled_until.is_none() && self.kill_at.is_none()
    }

    /// So many children more would not be too many.
    fn has_room_for(&self, more: usize) -> bool {
        let max = self.service.max as usize;
        max == 0 || self.members.len() + more <= max
    }

    /// Whether a client would have to be taken to a new child.
    pub fn wants_clients(&self) -> bool {
        self.open() && !self.paused && self.available() == 0 && self.has_room_for(1)
    }

    /// Whether clients have to wait for a child that is busy.
    fn makes_clients_wait(&self) -> bool {
        let stay = self.members.values().filter(|m| !m.departing).count();
        let max = self.service.max as usize;
        self.open() && !self.paused && self.available() == 0 && max > 0 && stay >= max
    }
}

fn waits(service: &Service) -> bool {
    service.wakeup.is_some_and(|wakeup| wakeup.conditional)
}

#[derive(Debug, Default)]
pub struct Book {
    pub accounts: BTreeMap<ServiceId, Account>,
    verbose: bool,
    /// There was a configuration before.
    loaded: bool,
    pub kill_time: Duration,
    generations: u32,
    /// What is to be done about the last fact.
    owed: Vec<Action>,
}

impl Book {
    /// The book about a master that is verbose or not.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            ..Self::default()
        }
    }

    // Facts, and what they oblige to.

    pub fn enter(&mut self, now: Time, event: &Event) {
        match event {
            Event::Connection { service } => self.connection(now, *service),
            Event::Report {
                service,
                writer,
                report,
            } => self.report(now, *service, *writer, *report),
            Event::Garbage {
                service,
                writer,
                length,
            } => {
                let (writer, length) = (*writer, *length);
                self.bad_report(now, *service, |service| Record::PartialReport {
                    service,
                    writer,
                    length,
                });
            }
            Event::Spawned {
                service,
                generation,
                pid,
            } => self.spawned(now, *service, *generation, *pid),
            Event::SpawnFailed { service, reason } => {
                let reason = reason.clone();
                self.failed(now, *service, |service| Record::SpawnFailed {
                    service,
                    reason,
                });
            }
            Event::WatchFailed { service, reason } => {
                let reason = reason.clone();
                self.failed(now, *service, |service| Record::WatchFailed {
                    service,
                    reason,
                });
            }
            Event::Connections { .. }
            | Event::Said { .. }
            | Event::Babbled { .. }
            | Event::Unwritable { .. }
            | Event::HungUp { .. } => unreachable!("pools have a simulation of their own"),
            Event::Exit { pid, status } => self.exited(now, *pid, *status),
            Event::Deadline => self.deadline(now),
            Event::Reload(plan) => self.reload(now, plan),
            Event::Pause { service } => self.pause(now, *service),
            Event::Resume { service } => {
                if let Some(account) = self.in_service(*service) {
                    account.paused = false;
                }
            }
            Event::Replace { service } => {
                if self.in_service(*service).is_some() {
                    self.restart(now, *service);
                }
            }
            Event::Wake { service } => self.wake_now(now, *service),
            Event::Verbose(verbose) => self.verbose = *verbose,
            Event::Stop { signal } => {
                let signal = *signal;
                self.owe_record(Record::Terminating { signal });
                self.owed.push(Action::Terminate { signal });
            }
        }
        self.leave_out_details();
    }

    fn owe_record(&mut self, record: Record) {
        self.owed.push(Action::Log(record));
    }

    /// What only a verbose master says.
    fn leave_out_details(&mut self) {
        let detail = |owed: &Action| matches!(owed, Action::Log(record) if record.is_detail());
        if !self.verbose {
            self.owed.retain(|owed| !detail(owed));
        }
    }

    fn connection(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id).filter(|a| a.wants_clients()) else {
            return;
        };
        let eligible = account.service.stress_eligible();
        if eligible && !account.has_room_for(2) {
            let entered = account.stress_until.is_none();
            account.stress_until = Some(now + STRESS_TIME);
            if entered {
                let record = Record::StressBegins {
                    service: account.service.clone(),
                    counts: account.said_counts(),
                };
                self.owe_record(record);
                self.restart(now, id);
            }
        }
        let stressed = self.accounts[&id].stress_until.is_some();
        self.owed.push(Action::Spawn {
            service: id,
            generation: 0,
            stress: eligible && stressed,
        });
    }

    fn report(&mut self, now: Time, id: ServiceId, writer: Pid, report: StatusReport) {
        let pid = report.pid;
        let claimed = pid;
        if writer != claimed {
            return self.bad_report(now, id, |service| Record::ForgedReport {
                service,
                writer,
                claimed,
            });
        }
        let account = self.accounts.get_mut(&id);
        let Some(member) = account.and_then(|account| account.members.get_mut(&pid)) else {
            return;
        };
        let generation = report.generation;
        if member.generation != generation {
            return self.bad_report(now, id, |service| Record::StaleReport {
                service,
                pid,
                generation,
            });
        }
        let value = report.available;
        if !(0..=1).contains(&value) {
            return self.bad_report(now, id, |service| Record::UnknownStatus {
                service,
                pid,
                value,
            });
        }
        let available = value == 1;
        if member.leaving || member.available == available {
            return;
        }
        member.available = available;
        member.used |= available;
        member.busy_since = (!available).then_some(now);
        if available {
            return self.served(id);
        }
        if member.ended != Ended::ByKill {
            member.ended = Ended::No;
        }
        if let Some(account) = self.accounts.get_mut(&id) {
            account.counted.clients += 1;
        }
    }

    fn bad_report(
        &mut self,
        now: Time,
        id: ServiceId,
        record: impl FnOnce(Arc<Service>) -> Record,
    ) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        if account
            .counted_since
            .is_none_or(|since| now - since >= MINUTE)
        {
            account.counted_since = Some(now);
            account.written = 0;
        }
        if account.written == BAD_REPORTS {
            account.left_out += 1;
            return;
        }
        account.written += 1;
        let service = account.service.clone();
        let count = std::mem::take(&mut account.left_out);
        self.owe_record(record(service.clone()));
        if count > 0 {
            self.owe_record(Record::Suppressed { service, count });
        }
    }

    fn spawned(&mut self, now: Time, id: ServiceId, generation: u32, pid: Pid) {
        // Who had the pid before is no more, whether its end was heard of or not.
        self.strike_out(pid);
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let member = Member {
            available: true,
            leaving: false,
            departing: false,
            used: false,
            generation,
            busy_since: None,
            told_to_leave: None,
            ended: Ended::No,
        };
        account.members.insert(pid, member);
        account.counted.started += 1;
        let service = account.service.clone();
        let wakes = std::mem::take(&mut account.wake_waits);
        self.owe_record(Record::Spawned { service, pid });
        if wakes {
            self.begin_waking(now, id);
        }
    }

    fn failed(&mut self, now: Time, id: ServiceId, record: impl FnOnce(Arc<Service>) -> Record) {
        let service = self.accounts[&id].service.clone();
        self.owe_record(record(service));
        self.throttle(now, id);
    }

    fn throttle(&mut self, now: Time, id: ServiceId) {
        if let Some(account) = self.accounts.get_mut(&id).filter(|a| a.open()) {
            let first = account.service.throttle_time;
            let most = account.service.care.throttle_most.unwrap_or(first);
            let time = match account.throttle {
                Some(last) => (2 * last).min(most).max(first),
                None => first,
            };
            account.throttle = Some(time);
            account.throttled_until = Some(now + time);
            let (service, counts) = (account.service.clone(), account.said_counts());
            self.owe_record(Record::Throttled {
                service,
                time,
                counts,
            });
        }
    }

    fn served(&mut self, id: ServiceId) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.remember(false);
            if !account.loses_too_many() {
                account.throttle = None;
            }
        }
    }

    fn lost(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        account.remember(true);
        if account.open() && account.loses_too_many() {
            let (service, crashed) = (account.service.clone(), account.lost());
            self.owe_record(Record::Crashing { service, crashed });
            self.throttle(now, id);
        }
    }

    fn exited(&mut self, now: Time, pid: Pid, status: ExitStatus) {
        let mut accounts = self.accounts.iter();
        let Some((&id, account)) = accounts.find(|(_, a)| a.members.contains_key(&pid)) else {
            return;
        };
        let member = account.members[&pid];
        let service = account.service.clone();
        let removed = account.kill_at.is_some();
        let too_long = member.ended != Ended::No;
        let throttles = account.open() && !member.used && !member.leaving && !too_long;
        self.count_end(id, status);
        self.strike_out(pid);
        let signals = [ExitStatus::Signal(15), ExitStatus::Signal(9)];
        let as_told = (removed || too_long) && signals.contains(&status);
        let failed = status != ExitStatus::Code(0) && !as_told;
        if failed {
            self.owe_record(Record::Ended {
                service: service.clone(),
                pid,
                status,
            });
        }
        if failed && throttles {
            self.owe_record(Record::BadStartup(service));
            self.throttle(now, id);
        }
        if member.available || member.leaving {
            return;
        }
        match failed || too_long {
            true => self.lost(now, id),
            false => self.served(id),
        }
    }

    fn count_end(&mut self, id: ServiceId, status: ExitStatus) {
        if let Some(account) = self.accounts.get_mut(&id) {
            let counted = &mut account.counted;
            match status {
                ExitStatus::Code(0) => counted.ended += 1,
                ExitStatus::Code(_) => counted.failed += 1,
                ExitStatus::Signal(_) => counted.killed += 1,
            }
        }
    }

    fn strike_out(&mut self, pid: Pid) {
        self.accounts.retain(|_, account| {
            account.members.remove(&pid);
            account.kill_at.is_none() || !account.members.is_empty()
        });
    }

    fn deadline(&mut self, now: Time) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        for (&id, account) in &mut self.accounts {
            if due(account.wake_at) {
                // What comes first counts, also when both are late.
                let free = |until| Some(until) <= account.wake_at;
                if account.throttled_until.is_none_or(free) && !account.paused {
                    let record = Record::Waking(account.service.clone());
                    self.owed.extend([Action::Log(record), Action::Wake(id)]);
                }
                account.wake_at = account.service.wakeup.map(|wakeup| now + wakeup.every);
            }
            if due(account.throttled_until) {
                account.throttled_until = None;
                let record = Record::Unthrottled {
                    service: account.service.clone(),
                    counts: account.said_counts(),
                };
                self.owed.push(Action::Log(record));
            }
            if due(account.stress_until) {
                account.stress_until = None;
                let record = Record::StressEnds {
                    service: account.service.clone(),
                    counts: account.said_counts(),
                };
                self.owed.push(Action::Log(record));
            }
            while let Some((at, pid)) = account.next_to_go(self.kill_time) {
                if at > now {
                    break;
                }
                let action = account.end(now, pid);
                self.owed.extend(action);
            }
            if due(account.kill_at) && !std::mem::replace(&mut account.killed, true) {
                for &pid in account.members.keys() {
                    let service = account.service.clone();
                    self.owed.extend([
                        Action::Log(Record::Killing { service, pid }),
                        Action::Signal {
                            pid,
                            signal: Signal::Kill,
                        },
                    ]);
                }
            }
        }
    }

    fn reload(&mut self, now: Time, plan: &Plan) {
        self.kill_time = plan.kill_time;
        let news = std::mem::replace(&mut self.loaded, true);
        for entry in &plan.entries {
            match self.accounts.get_mut(&entry.id) {
                Some(account) => {
                    account.service = entry.service.clone();
                    account.wake_waits = waits(&entry.service);
                    account.throttle = None;
                    account.clients.clear();
                    self.restart(now, entry.id);
                }
                None => {
                    let account = Account::new(entry.service.clone());
                    self.accounts.insert(entry.id, account);
                    if news {
                        self.owe_record(Record::Added(entry.service.clone()));
                    }
                    self.begin_waking(now, entry.id);
                }
            }
        }
        for &id in &plan.removed {
            self.remove(now, id);
        }
    }

    fn restart(&mut self, now: Time, id: ServiceId) {
        self.dismiss(now, id);
        self.begin_waking(now, id);
    }

    fn dismiss(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        for member in account.members.values_mut() {
            member.departing |= std::mem::take(&mut member.available);
            member.leaving = true;
            member.told_to_leave.get_or_insert(now);
        }
        self.owed.push(Action::Dismiss(id));
    }

    fn begin_waking(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let every = account.service.wakeup.map(|wakeup| wakeup.every);
        let every = every.filter(|_| !account.wake_waits);
        account.wake_at = every.map(|every| now + every);
        if every.is_some() && account.throttled_until.is_none() && !account.paused {
            let service = account.service.clone();
            self.owed.push(Action::Wake(id));
            self.owe_record(Record::Waking(service));
        }
    }

    // What an operator wants.

    fn in_service(&mut self, id: ServiceId) -> Option<&mut Account> {
        let account = self.accounts.get_mut(&id)?;
        account.kill_at.is_none().then_some(account)
    }

    fn pause(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.in_service(id) else {
            return;
        };
        if !std::mem::replace(&mut account.paused, true) {
            self.dismiss(now, id);
        }
    }

    fn wake_now(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.in_service(id) else {
            return;
        };
        if account.throttled_until.is_some() || account.paused {
            return;
        }
        if account.wake_at.is_some() {
            account.wake_at = account.service.wakeup.map(|wakeup| now + wakeup.every);
        }
        let record = Record::Waking(account.service.clone());
        self.owed.extend([Action::Log(record), Action::Wake(id)]);
    }

    fn remove(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let time = account.service.care.stop_timeout;
        account.kill_at = Some(now + time.unwrap_or(self.kill_time));
        let (service, counts) = (account.service.clone(), account.said_counts());
        self.owed
            .push(Action::Log(Record::Removed { service, counts }));
        account.throttled_until = None;
        account.stress_until = None;
        account.wake_at = None;
        account.watched = false;
        self.owed.push(Action::Close(id));
        let signal = Signal::Term;
        let pids = account.members.keys();
        self.owed
            .extend(pids.map(|&pid| Action::Signal { pid, signal }));
        if account.members.is_empty() {
            self.accounts.remove(&id);
        }
    }

    /// The turn ends: who is watched and should not be, who should be and is not.
    pub fn settle(&mut self, now: Time) {
        for (&id, account) in &mut self.accounts {
            let wants = account.wants_clients();
            if wants != std::mem::replace(&mut account.watched, wants) {
                self.owed.push(match wants {
                    true => Action::Watch(id),
                    false => Action::Unwatch(id),
                });
            }
            account.take_stock(now);
            let waits = account.makes_clients_wait() && account.service.stress_eligible();
            let waited = std::mem::replace(&mut account.at_limit, waits);
            let began = waits && !waited;
            let recent = |at: Time| now - at <= WARNING_TIME;
            if began && !account.warned_at.is_some_and(recent) {
                let record = Record::LimitReached(account.service.clone());
                self.owed.push(Action::Log(record));
            }
            let counts = account.counts();
            if account.said.replace(counts) != Some(counts) {
                self.owed.push(Action::Log(account.counted()));
            }
        }
        self.leave_out_details();
    }

    // Wishes.

    /// Takes note of what the table wishes.
    ///
    /// # Errors
    /// Nobody asked for it.
    pub fn wish(&mut self, now: Time, action: &Action) -> Result<(), String> {
        let mut known = action.clone();
        match &mut known {
            Action::Spawn { generation, .. } => self.check_generation(generation)?,
            Action::Log(Record::LimitReached(service)) => self.check_warning(now, service)?,
            _ => {}
        }
        if let Some(at) = self.owed.iter().position(|owed| *owed == known) {
            self.owed.swap_remove(at);
            return Ok(());
        }
        match action {
            // The table need not notice at once that another 1000 s are over.
            Action::Log(Record::LimitReached(_)) => Ok(()),
            // It may repeat itself, but say nothing wrong.
            Action::Log(counts @ Record::Counts { .. }) if self.verbose => {
                let mut accounts = self.accounts.values();
                let right = accounts.any(|account| account.counted() == *counts);
                right.then_some(()).ok_or(format!("{counts:?} are wrong"))
            }
            _ => Err(format!("{action:?} for no reason; owed: {:?}", self.owed)),
        }
    }

    fn check_generation(&mut self, generation: &mut u32) -> Result<(), String> {
        let newer = *generation > self.generations;
        self.generations = std::mem::take(generation);
        newer.then_some(()).ok_or("a generation is not new".into())
    }

    fn check_warning(&mut self, now: Time, service: &Service) -> Result<(), String> {
        let mut accounts = self.accounts.values_mut();
        let account = accounts.find(|a| a.kill_at.is_none() && *a.service == *service);
        let account = account.ok_or("a warning about a service that is not there")?;
        let last = account.warned_at.replace(now);
        if last.is_some_and(|at| now - at <= WARNING_TIME) {
            return Err("a warning about the limit too soon after the last".into());
        }
        let waits = account.makes_clients_wait() && account.service.stress_eligible();
        waits
            .then_some(())
            .ok_or("a warning about a limit that is not reached".into())
    }

    // What must hold.

    /// That everything owed was done, and that the table knows what the book knows.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn compare(&self, table: &Table) -> Result<(), String> {
        if !self.owed.is_empty() {
            return Err(format!("not done: {:?}", self.owed));
        }
        if table.services().count() != self.accounts.len() {
            return Err("the table has other services".into());
        }
        for (id, account) in &self.accounts {
            let service = table
                .service(*id)
                .ok_or_else(|| format!("{id:?} is forgotten"))?;
            if !Arc::ptr_eq(service.config(), &account.service) {
                return Err(format!("{id:?} has another configuration"));
            }
            let expected = (
                account.available() as u32,
                account.members.len() as u32,
                account.throttled_until.is_some(),
                account.kill_at.is_some(),
                account.stress_until.is_some(),
                account.throttle,
                (account.lost(), account.clients.len() as u32),
            );
            let found = (
                service.avail(),
                service.total(),
                service.throttled(),
                service.removed(),
                service.stressed(),
                service.throttle_time(),
                service.crashes(),
            );
            if service.paused() != account.paused {
                return Err(format!("{id:?}: paused is {}", service.paused()));
            }
            account.counted.compare(service.stats())?;
            if expected != found {
                return Err(format!(
                    "{id:?}: (avail, total, throttled, removed, stressed, throttle time, crashes) should be {expected:?} \
                     and is {found:?}"
                ));
            }
        }
        Ok(())
    }

    /// When something is to be done without another fact.
    pub fn next_deadline(&self) -> Option<Time> {
        let accounts = self.accounts.values();
        let deadlines = accounts.filter_map(|account| account.next_deadline(self.kill_time));
        deadlines.min()
    }

    /// That the listeners are watched exactly as they should be, at the end of a turn.
    ///
    /// # Errors
    /// Which are not.
    pub fn compare_watched(&self, table: &Table) -> Result<(), String> {
        for (id, account) in &self.accounts {
            let listening = table.service(*id).map(|service| service.listening());
            if listening != Some(account.watched) || account.watched != account.wants_clients() {
                return Err(format!("{id:?}: listening is {listening:?}"));
            }
            let mut pids = account.members.keys();
            if !pids.all(|&pid| table.service_of(pid) == Some(*id)) {
                return Err(format!("{id:?} has other children"));
            }
        }
        Ok(())
    }
}
