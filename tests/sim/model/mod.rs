//! The simulation's own model of the master's knowledge, and of the actions that are due.
//!
//! It repeats the rules of the manual, independent of the code and in the simplest way: for every
//! event, all actions that it requires. Every action of the table must be due, and every due action
//! must be taken.

mod account;
mod facts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{Action, Kind, Pid, Record, ServiceId, Table, Time};

pub use account::{Account, Ended, Member};

const STRESS_TIME: Duration = Duration::from_secs(1000);
const WARNING_TIME: Duration = Duration::from_secs(1000);
/// Maximum number of lines per minute about a service's bad reports.
const BAD_REPORTS: u32 = 10;
/// The number of remembered clients.
const CLIENTS: usize = 20;
/// A child that ends sooner ended at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So many in a row may come to nothing; then each start waits for so much longer.
const FREE: u32 = 4;
const DELAY: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
/// If this many processes of a service hang in exec, no more are started.
const HANGING_MAX: u32 = 3;

/// A log action.
fn log(service: &Arc<Service>, child: Option<Pid>, kind: Kind) -> Action {
    Action::Log(Record {
        service: Some(service.clone()),
        child,
        severity: kind.severity(),
        kind,
    })
}

#[derive(Debug, Default)]
pub struct Model {
    pub accounts: BTreeMap<ServiceId, Account>,
    verbose: bool,
    /// Whether a configuration has been loaded.
    loaded: bool,
    pub kill_time: Duration,
    generations: u32,
    /// The actions that the last event requires.
    owed: Vec<Action>,
}

impl Model {
    /// The model of a master, verbose or not.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            ..Self::default()
        }
    }

    /// Ends a turn: adds the due changes of watched listeners.
    pub fn settle(&mut self, now: Time) {
        for (&id, account) in &mut self.accounts {
            let wants = account.wants_clients();
            if wants != std::mem::replace(&mut account.watched, wants) {
                self.owed.push(if wants {
                    Action::Watch(id)
                } else {
                    Action::Unwatch(id)
                });
            }
            account.take_stock(now);
            let waits = account.makes_clients_wait() && account.service.max > 1;
            account.looked = false;
            let waited = std::mem::replace(&mut account.at_limit, waits);
            let began = waits && !waited;
            let recent = |at: Time| now - at <= WARNING_TIME;
            if began && !account.warned_at.is_some_and(recent) {
                self.owed
                    .push(log(&account.service, None, Kind::LimitReached));
            }
            let counts = account.counts();
            if account.said.replace(counts) != Some(counts) {
                self.owed.push(account.log_counts());
            }
        }
        self.leave_out_details();
    }

    // Actions.

    /// Checks and removes a due action.
    ///
    /// # Errors
    /// The action was not due.
    pub fn wish(&mut self, now: Time, action: &Action) -> Result<(), String> {
        let mut known = action.clone();
        let about_limit = |record: &&Record| record.kind == Kind::LimitReached;
        let record = match &mut known {
            Action::Spawn { generation, .. } => {
                self.check_generation(generation)?;
                None
            }
            Action::Log(record) => Some(&*record),
            _ => None,
        };
        if let Some(Record {
            service: Some(service),
            ..
        }) = record.filter(about_limit)
        {
            self.check_warning(now, service)?;
        }
        if let Some(at) = self.owed.iter().position(|owed| *owed == known) {
            self.owed.swap_remove(at);
            return Ok(());
        }
        match action {
            Action::Log(record) => match record.kind {
                // The table may be late to notice that another 1000 s are over.
                Kind::LimitReached => Ok(()),
                // It may be repeated, but must be correct.
                Kind::Counts(_) if self.verbose => {
                    let mut accounts = self.accounts.values();
                    let right = accounts.any(|account| account.log_counts() == known);
                    right.then_some(()).ok_or(format!("{record:?} is wrong"))
                }
                _ => Err(format!("{record:?} for no reason; owed: {:?}", self.owed)),
            },
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
        let account = accounts
            .find(|a| a.kill_at.is_none() && *a.service == *service)
            .ok_or("a warning about a service that is not there")?;
        let last = account.warned_at.replace(now);
        if last.is_some_and(|at| now - at <= WARNING_TIME) {
            return Err("a warning about the limit too soon after the last".into());
        }
        account
            .is_full()
            .then_some(())
            .ok_or("a warning about a limit that is not reached".into())
    }

    // Invariants.

    /// Checks that all due actions were taken, and that the table's state is the model's.
    ///
    /// # Errors
    /// The difference.
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
                account.throttled(),
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
                service.last_throttle(),
                service.crashes(),
            );
            if service.paused() != account.paused {
                return Err(format!("{id:?}: paused is {}", service.paused()));
            }
            account.counted.compare(service.stats())?;
            if service.stalled() != (account.stalled && account.available() > 0) {
                return Err(format!("{id:?}: stalled is {}", service.stalled()));
            }
            if service.may_hide_clients() != account.may_hide_clients() {
                return Err(format!("{id:?}: whether clients may be hidden"));
            }
            if expected != found {
                return Err(format!(
                    "{id:?}: (avail, total, throttled, removed, stressed, throttle time, crashes) should be {expected:?} \
                     and is {found:?}"
                ));
            }
        }
        Ok(())
    }

    /// When the next action is due without another event.
    pub fn next_deadline(&self) -> Option<Time> {
        let accounts = self.accounts.values();
        let deadlines = accounts.filter_map(|account| account.next_deadline(self.kill_time));
        deadlines.min()
    }

    /// Checks that exactly the right listeners are watched at the end of a turn.
    ///
    /// # Errors
    /// The wrong listeners.
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
