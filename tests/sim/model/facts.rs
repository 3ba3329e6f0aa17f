//! Events, and the actions that they require.

use std::sync::Arc;

use master::config::Service;
use master::policy::{
    Action, Event, ExitStatus, Kind, Pid, Plan, Progress, Record, ServiceId, Severity, Signal,
    SpawnFailure, Time,
};
use master::protocol::StatusReport;

use super::account::{Account, Ended, Member, waits};
use super::{BAD_REPORTS, DELAY, FREE, MINUTE, Model, STRESS_TIME, WARNING_TIME, log};

impl Model {
    pub fn enter(&mut self, now: Time, event: &Event) {
        match *event {
            Event::Connection { service, clients } => {
                assert_eq!(clients, 1, "of a service that is no pool");
                self.connection(now, service);
            }
            Event::Report {
                service,
                writer,
                report: Ok(report),
            } => self.report(now, service, writer, report),
            Event::Report {
                service,
                writer,
                report: Err(length),
            } => self.bad_report(now, service, writer, Kind::PartialReport(length)),
            Event::Waiting { service, clients } => self.looked(now, service, clients),
            Event::Spawned {
                service,
                generation,
                pid,
            } => self.spawned(now, service, generation, pid),
            Event::SpawnFailed { service, error } => {
                if let Some(account) = self.accounts.get_mut(&service) {
                    account.spawning = false;
                }
                let failure = SpawnFailure::System(error);
                self.failed(now, service, Kind::SpawnFailed(failure));
            }
            Event::WatchFailed { service, error } => {
                self.failed(now, service, Kind::WatchFailed(error));
            }
            Event::ExecHangs { pid } => self.exec_hangs(now, pid),
            Event::SentDescriptors { pid } => self.sent_descriptors(now, pid),
            Event::PoolReport { .. }
            | Event::PoolGarbage { .. }
            | Event::OrderFailed { .. }
            | Event::ChannelClosed { .. }
            | Event::Measured { .. } => {
                unreachable!("pools have a simulation of their own, and recycling")
            }
            Event::Exited {
                pid,
                status,
                progress,
            } => self.exited(now, pid, status, progress),
            Event::Deadline => self.deadline(now),
            Event::Reload(ref plan) => self.reload(now, plan),
            Event::Pause { service } => self.pause(now, service),
            Event::Resume { service } => {
                if let Some(account) = self.in_service(service) {
                    account.paused = false;
                }
            }
            Event::Replace { service } => {
                if self.in_service(service).is_some() {
                    self.restart(now, service);
                }
            }
            Event::Wake { service } => self.wake_now(now, service),
            Event::Verbose(verbose) => self.verbose = verbose,
            Event::Stop { signal } => {
                let kind = Kind::Terminating(signal);
                self.owed.push(Action::Log(Record {
                    service: None,
                    child: None,
                    severity: Severity::Info,
                    kind,
                }));
                self.owed.push(Action::Terminate { signal });
            }
        }
        self.leave_out_details();
    }

    fn owe_line(&mut self, service: &Arc<Service>, child: Option<Pid>, kind: Kind) {
        self.owed.push(log(service, child, kind));
    }

    /// Removes the lines that only a verbose master logs.
    pub(super) fn leave_out_details(&mut self) {
        let detail = |owed: &Action| matches!(owed, Action::Log(record) if record.severity == Severity::Detail);
        if !self.verbose {
            self.owed.retain(|owed| !detail(owed));
        }
    }

    fn connection(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id).filter(|a| a.wants_clients()) else {
            return;
        };
        if let Some(time) = account.count_start(now) {
            let line = account.delay(now, time, Kind::StartLimit(time));
            return self.owed.extend(line);
        }
        let eligible = account.service.stress_eligible();
        if eligible && !account.has_room_for(2) {
            let entered = account.stress_until.is_none();
            account.stress_until = Some(now + STRESS_TIME);
            if entered {
                let (service, counts) = (account.service.clone(), account.said_counts());
                self.owe_line(&service, None, Kind::StressBegins(counts));
                self.restart(now, id);
            }
        }
        let account = self.accounts.get_mut(&id).expect("it is there");
        account.spawning = true;
        let stressed = account.stress_until.is_some();
        self.owed.push(Action::Spawn {
            service: id,
            generation: 0,
            stress: eligible && stressed,
        });
    }

    fn report(&mut self, now: Time, id: ServiceId, writer: Pid, report: StatusReport) {
        let pid = report.pid;
        if writer != pid {
            return self.bad_report(now, id, writer, Kind::ForgedReport(pid));
        }
        let account = self.accounts.get_mut(&id);
        let Some(member) = account.and_then(|account| account.members.get_mut(&pid)) else {
            return;
        };
        let generation = report.generation;
        if member.generation != generation {
            return self.bad_report(now, id, pid, Kind::StaleReport(generation));
        }
        let value = report.available;
        if !(0..=1).contains(&value) {
            return self.bad_report(now, id, pid, Kind::UnknownStatus(value));
        }
        let idle = value == 1;
        if member.idle == idle {
            return;
        }
        // A child that is told to leave has sent this report before, so it counts.
        member.idle = idle;
        member.used |= idle;
        member.busy_since = (!idle).then_some(now);
        if idle {
            return self.served(id);
        }
        if !member.leaving && member.ended != Ended::ByKill {
            member.ended = Ended::No;
        }
        member.had_client = true;
        if let Some(account) = self.accounts.get_mut(&id) {
            account.counted.clients += 1;
            account.in_vain = 0;
            account.stalled = false;
        }
    }

    fn bad_report(&mut self, now: Time, id: ServiceId, writer: Pid, kind: Kind) {
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
        self.owe_line(&service, Some(writer), kind);
        if count > 0 {
            self.owe_line(&service, None, Kind::Suppressed(count));
        }
    }

    fn looked(&mut self, now: Time, id: ServiceId, clients: bool) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let service = account.service.clone();
        account.looked |= clients;
        let hides = account.may_hide_clients();
        let recent = |at: Time| now - at <= WARNING_TIME;
        if clients && hides && account.is_full() && !account.warned_at.is_some_and(recent) {
            self.owed.push(log(&service, None, Kind::LimitReached));
        }
        let all = account.counted.clients + account.counted.started;
        let seen = (clients && hides && account.available() > 0).then_some(all);
        account.stalled = seen.is_some() && seen == account.seen;
        account.seen = seen;
        if account.stalled && account.stall_said.is_none_or(|at| now - at >= WARNING_TIME) {
            account.stall_said = Some(now);
            let kind = Kind::Stalled(account.available() as u32);
            self.owed.push(log(&service, None, kind));
        }
    }

    /// The service of a child.
    fn account_of(&mut self, pid: Pid) -> Option<(ServiceId, &mut Account)> {
        let mut accounts = self.accounts.iter_mut();
        let found = accounts.find(|(_, account)| account.members.contains_key(&pid));
        found.map(|(&id, account)| (id, account))
    }

    fn exec_hangs(&mut self, now: Time, pid: Pid) {
        let Some((id, account)) = self.account_of(pid) else {
            return;
        };
        let member = account.members.get_mut(&pid).expect("its child");
        member.hanging = true;
        let heard = !std::mem::replace(&mut member.leaving, true);
        member.ended = Ended::ByKill;
        let (service, hanging) = (account.service.clone(), account.hanging());
        self.owe_line(&service, Some(pid), Kind::ExecHangs(hanging));
        let signal = Signal::Kill;
        self.owed.push(Action::Signal { pid, signal });
        if heard {
            self.owed.push(Action::CloseChannel { pid });
        }
        self.throttle(now, id);
    }

    fn sent_descriptors(&mut self, now: Time, pid: Pid) {
        let Some((id, account)) = self.account_of(pid) else {
            return;
        };
        let member = account.members.get_mut(&pid).expect("its child");
        member.leaving = true;
        member.told_to_leave.get_or_insert(now);
        if member.ended == Ended::No {
            member.ended = Ended::ByTerm(now);
            let signal = Signal::Term;
            self.owed.push(Action::Signal { pid, signal });
        }
        self.bad_report(now, id, pid, Kind::SentDescriptors);
    }

    fn spawned(&mut self, now: Time, id: ServiceId, generation: u32, pid: Pid) {
        // The previous process with this pid has ended, whether its end was seen or not.
        self.strike_out(pid);
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let member = Member {
            idle: true,
            leaving: false,
            hanging: false,
            used: false,
            had_client: false,
            started: now,
            generation,
            busy_since: None,
            told_to_leave: None,
            ended: Ended::No,
        };
        account.members.insert(pid, member);
        account.counted.started += 1;
        account.spawning = false;
        let service = account.service.clone();
        let wakes = std::mem::take(&mut account.wake_waits);
        let paused = account.paused;
        self.owe_line(&service, Some(pid), Kind::Spawned);
        if paused {
            self.dismiss(now, id);
        }
        if wakes {
            self.begin_waking(now, id);
        }
    }

    fn failed(&mut self, now: Time, id: ServiceId, kind: Kind) {
        if let Some(account) = self.accounts.get(&id) {
            let service = account.service.clone();
            self.owe_line(&service, None, kind);
            self.throttle(now, id);
        }
    }

    fn throttle(&mut self, now: Time, id: ServiceId) {
        if let Some(account) = self.accounts.get_mut(&id).filter(|a| a.may_throttle()) {
            let first = account.service.throttle_time;
            let most = account.service.limits().throttle_most.unwrap_or(first);
            let time = match account.throttle {
                Some(last) => (2 * last).min(most).max(first),
                None => first,
            };
            account.throttle = Some(time);
            account.throttled_until = Some(now + time);
            let (service, counts) = (account.service.clone(), account.said_counts());
            self.owe_line(&service, None, Kind::Throttled(time, counts));
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
        if account.may_throttle() && account.loses_too_many() {
            let (service, crashed) = (account.service.clone(), account.lost());
            self.owe_line(&service, None, Kind::Crashing(crashed));
            self.throttle(now, id);
        }
    }

    fn exited(&mut self, now: Time, pid: Pid, status: ExitStatus, progress: Progress) {
        let mut accounts = self.accounts.iter();
        let Some((&id, account)) = accounts.find(|(_, a)| a.members.contains_key(&pid)) else {
            return;
        };
        let member = account.members[&pid];
        let service = account.service.clone();
        let removed = account.kill_at.is_some();
        let too_long = member.ended != Ended::No && !member.hanging;
        let throttles = account.may_throttle() && !member.used && !member.leaving && !too_long;
        self.count_end(id, status);
        self.strike_out(pid);
        let signals = [ExitStatus::Signal(15), ExitStatus::Signal(9)];
        let as_told = member.hanging || (removed || too_long) && signals.contains(&status);
        let failed = status != ExitStatus::Code(0) && !as_told;
        if failed {
            self.owe_line(&service, Some(pid), Kind::Ended(status));
        }
        if status == ExitStatus::Code(0) && member.is_judged() {
            let found = if member.is_young(now) {
                progress
            } else {
                Progress::Made
            };
            self.judge(now, id, found);
        }
        if failed && throttles {
            self.owe_line(&service, None, Kind::BadStartup);
            self.throttle(now, id);
        }
        if member.idle || member.leaving {
            return;
        }
        if failed || too_long {
            self.lost(now, id)
        } else {
            self.served(id)
        }
    }

    fn judge(&mut self, now: Time, id: ServiceId, progress: Progress) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        match progress {
            Progress::Made => account.in_vain = 0,
            Progress::Unknown => {}
            Progress::None => {
                account.in_vain += 1;
                if account.in_vain > FREE {
                    let longest = account.service.limits().throttle_most;
                    let longest = longest.unwrap_or(account.service.throttle_time);
                    let time = (DELAY * (account.in_vain - FREE)).min(longest);
                    if !time.is_zero() {
                        let kind = Kind::InVain(account.in_vain, time);
                        let line = account.delay(now, time, kind);
                        self.owed.extend(line);
                    }
                }
            }
        }
    }

    /// Whether it matters if this child, which has ended, took a client.
    pub fn is_judged(&mut self, now: Time, pid: Pid, status: ExitStatus) -> bool {
        status == ExitStatus::Code(0)
            && self.account_of(pid).is_some_and(|(_, account)| {
                let member = account.members[&pid];
                account.kill_at.is_none() && member.is_judged() && member.is_young(now)
            })
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
                // The earlier time counts, even if both are over.
                let free = |until| Some(until) <= account.wake_at;
                let free = |until: Option<Time>| until.is_none_or(free);
                let may_start = free(account.throttled_until) && free(account.delayed_until);
                if may_start && !account.paused {
                    let record = log(&account.service, None, Kind::Waking);
                    self.owed.extend([record, Action::Wake(id)]);
                }
                account.wake_at = account.service.wakeup.map(|wakeup| now + wakeup.every);
            }
            if due(account.throttled_until) {
                account.throttled_until = None;
                let kind = Kind::Unthrottled(account.said_counts());
                self.owed.push(log(&account.service, None, kind));
            }
            if due(account.delayed_until) {
                account.delayed_until = None;
            }
            if due(account.stress_until) {
                account.stress_until = None;
                let kind = Kind::StressEnds(account.said_counts());
                self.owed.push(log(&account.service, None, kind));
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
                    let signal = Signal::Kill;
                    self.owed.extend([
                        log(&account.service, Some(pid), Kind::Killing),
                        Action::Signal { pid, signal },
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
                    account.in_vain = 0;
                    account.delay_said = None;
                    account.period = None;
                    self.restart(now, entry.id);
                }
                None => {
                    let account = Account::new(entry.service.clone());
                    self.accounts.insert(entry.id, account);
                    if news {
                        self.owe_line(&entry.service, None, Kind::Added);
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
        for (&pid, member) in &mut account.members {
            if !std::mem::replace(&mut member.leaving, true) {
                self.owed.push(Action::CloseChannel { pid });
            }
            member.told_to_leave.get_or_insert(now);
        }
    }

    fn begin_waking(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let every = account
            .service
            .wakeup
            .map(|wakeup| wakeup.every)
            .filter(|_| !account.wake_waits);
        account.wake_at = every.map(|every| now + every);
        if every.is_some() && !account.throttled() && !account.paused {
            let service = account.service.clone();
            self.owed.push(Action::Wake(id));
            self.owe_line(&service, None, Kind::Waking);
        }
    }

    // Requests of an operator.

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
        if account.throttled() || account.paused {
            return;
        }
        if account.wake_at.is_some() {
            account.wake_at = account.service.wakeup.map(|wakeup| now + wakeup.every);
        }
        let record = log(&account.service, None, Kind::Waking);
        self.owed.extend([record, Action::Wake(id)]);
    }

    fn remove(&mut self, now: Time, id: ServiceId) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let time = account.service.limits().stop_timeout;
        account.kill_at = Some(now + time.unwrap_or(self.kill_time));
        let kind = Kind::Removed(account.said_counts());
        self.owed.push(log(&account.service, None, kind));
        account.throttled_until = None;
        account.delayed_until = None;
        account.stress_until = None;
        account.wake_at = None;
        account.watched = false;
        self.owed.push(Action::Close(id));
        let signal = Signal::Term;
        for (&pid, member) in &account.members {
            self.owed.push(Action::Signal { pid, signal });
            if !member.leaving {
                self.owed.push(Action::CloseChannel { pid });
            }
        }
        if account.members.is_empty() {
            self.accounts.remove(&id);
        }
    }
}
