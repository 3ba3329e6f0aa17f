//! Bytes that a child writes to its status channel.

use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{Action, Event, ServiceId, Table};
use master::protocol::{Availability, StatusReport, reports};

use super::step::configured;

const CHILD: i32 = 7;
const GENERATION: u32 = 1;

/// The first byte is the length of the data of one read, which follows, and so on.
pub fn run(input: &[u8]) {
    let now = Duration::from_secs(1);
    let (mut table, service) = table_with_child(now);
    let mut expected = Availability::Available;
    let mut rest = input;
    while let Some((&length, after)) = rest.split_first() {
        let (written, after) = after.split_at(after.len().min(length.into()));
        rest = after;
        let mut left = written;
        for said in reports(CHILD, written) {
            let (this, others) = left.split_at(said.err().unwrap_or(StatusReport::SIZE));
            left = others;
            if said.is_err() {
                assert_ne!(written.len() % StatusReport::SIZE, 0);
            }
            if let Ok(report) = said {
                assert_eq!(report.encode(), this);
                let own = (report.pid, report.generation) == (CHILD, GENERATION);
                expected = report.availability().filter(|_| own).unwrap_or(expected);
            }
            let mut actions = Vec::new();
            table.step(
                now,
                Event::Report {
                    service,
                    writer: CHILD,
                    report: said,
                },
                &mut actions,
            );
            table.settle(now, &mut actions);
            table.check().expect("the invariants hold");
            let quiet = |action: &Action| {
                matches!(
                    action,
                    Action::Log(_) | Action::Watch(_) | Action::Unwatch(_)
                )
            };
            assert!(actions.iter().all(quiet), "{actions:?}");
            let avail = table.service(service).expect("the service").avail();
            assert_eq!(avail, u32::from(expected == Availability::Available));
        }
        assert_eq!(left, [0; 0], "all that was written is something");
    }
}

/// A table whose only service has one child.
fn table_with_child(now: Duration) -> (Table, ServiceId) {
    let mut table = Table::new(Duration::from_secs(10), true);
    // One whose children are not told to leave after a number of clients.
    let plain = configured(1).into_iter().map(|service| Service {
        extra: None,
        ..(*service).clone()
    });
    let plain: Vec<_> = plain.map(Arc::new).collect();
    let plan = table.plan(&plain, Duration::from_secs(10));
    let service = plan.entries[0].id;
    let mut actions = Vec::new();
    table.step(now, Event::Reload(plan), &mut actions);
    let (generation, pid) = (GENERATION, CHILD);
    let spawned = Event::Spawned {
        service,
        generation,
        pid,
    };
    table.step(now, spawned, &mut actions);
    table.settle(now, &mut actions);
    (table, service)
}
