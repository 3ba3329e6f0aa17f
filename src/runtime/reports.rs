//! What children report on their services' status channels: when it is read, and how much of it.

use std::mem;
use std::time::Duration;

use super::{Runtime, spare};
use crate::log::reason;
use crate::policy::{Event, ServiceId, Table, Time};
use crate::proto::StatusReport;
use crate::sys::channel::{More, Record};

/// Batches of reports read from one service in one turn: a child that floods its channel must not
/// keep the others waiting.
const BATCHES_MAX: usize = 64;
/// While a service has more than one child available, nobody misses its reports for a moment: so
/// long for each child to spare. To be woken up for one costs more than to read many.
const REPORTS_WAIT: Duration = Duration::from_millis(1);
/// More children to spare make reports wait no longer: by default (`net.core.wmem_default`) Linux
/// keeps 278 of a service, and has a child wait that has one more.
const SPARE_MAX: u32 = 4;
/// So many reports in that time, and the next are waited for without a look at the first.
const REPORTS_MANY: usize = 8;

impl Runtime {
    /// Reads the reports of every service that has some, and of every service that lost a child:
    /// its last report may have come after the poller looked.
    pub(super) fn read_reports(&mut self, now: Time) {
        self.read_deferred(now);
        let mut reported = mem::take(&mut self.turn.reported);
        reported.sort_unstable();
        reported.dedup();
        for &id in &reported {
            self.read_reports_of(now, id);
        }
        self.turn.reported = reported;
    }

    /// Reads the reports that have waited long enough. Where many have come, more will.
    fn read_deferred(&mut self, now: Time) {
        if self.turn.deferred_until.is_none_or(|until| now < until) {
            return;
        }
        let mut deferred = mem::take(&mut self.turn.deferred);
        self.turn.deferred_until = None;
        deferred.retain(|&id| {
            let many = self.read_reports_of(now, id) >= REPORTS_MANY;
            let until = wait_until(now, &self.table, id).filter(|_| many);
            if until.is_none() {
                if let Err(error) = self.ports.expect_reports(id, &self.poll) {
                    self.status_failed(now, id, reason(&error));
                }
            }
            self.turn.deferred_until = earlier(self.turn.deferred_until, until);
            until.is_some()
        });
        self.turn.deferred = deferred;
    }

    /// Reads what has been reported of a service, and tells how much that was.
    fn read_reports_of(&mut self, now: Time, id: ServiceId) -> usize {
        let mut records = mem::take(&mut self.turn.records);
        let mut count = 0;
        for _ in 0..BATCHES_MAX {
            let more = self.ports.read_status(id, &mut records);
            count += records.len();
            for record in records.drain(..) {
                self.step(now, report_event(id, &record));
            }
            match more {
                Ok(More::Perhaps) => {}
                Ok(More::No) => break,
                Ok(More::Never) => self.status_failed(now, id, "a child shut it down".into()),
                Err(error) => self.status_failed(now, id, reason(&error)),
            }
        }
        self.turn.records = records;
        count
    }

    fn status_failed(&mut self, now: Time, service: ServiceId, reason: String) {
        self.step(now, Event::StatusFailed { service, reason });
    }
}

/// Until when the service's reports can wait, if at all.
pub(super) fn wait_until(now: Time, table: &Table, id: ServiceId) -> Option<Time> {
    let spare = spare(table, id);
    (spare > 0).then(|| now + REPORTS_WAIT * spare.min(SPARE_MAX))
}

/// The earlier of two times, where none is never.
pub(super) fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    one.into_iter().chain(other).min()
}

/// What a record on a service's status channel tells the policy.
fn report_event(service: ServiceId, record: &Record) -> Event {
    let writer = record.writer;
    match record.bytes().and_then(StatusReport::decode) {
        Some(report) => Event::Report {
            service,
            writer,
            report,
        },
        None => Event::Garbage {
            service,
            writer,
            length: record.length(),
        },
    }
}
