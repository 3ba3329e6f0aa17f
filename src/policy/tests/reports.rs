//! What is believed of what children say.

use super::*;

#[test]
fn reports_that_do_not_fit_change_nothing() {
    let mut fixture = Fixture::new([inet(25, 10), unix("local", 10)]);
    let child = fixture.spawn(FIRST);
    let other = fixture.spawn(SECOND_SERVICE);
    let (pid, generation) = child;
    let report = |pid, generation, available| StatusReport {
        pid,
        generation,
        available,
    };
    let cases = [
        // From another process, in the child's name.
        (FIRST, other.0, report(pid, generation, 0)),
        (SECOND_SERVICE, other.0, report(pid, generation, 0)),
        // Through another service's channel.
        (SECOND_SERVICE, pid, report(pid, generation, 0)),
        // Of another generation.
        (FIRST, pid, report(pid, generation + 1, 0)),
        // Neither taken nor available.
        (FIRST, pid, report(pid, generation, 2)),
        (FIRST, pid, report(pid, generation, -1)),
        // Of no child.
        (FIRST, 9999, report(9999, generation, 0)),
        (FIRST, pid, report(0, 0, 0)),
        (FIRST, 0, report(pid, generation, 0)),
    ];
    for (service, writer, report) in cases {
        let event = Event::Report {
            service,
            writer,
            report: Ok(report),
        };
        let what = format!("{event:?}");
        let actions = without_logs(fixture.step(event));
        assert_eq!(actions, [], "{what}");
        assert_eq!(fixture.counts(FIRST), (1, 1), "{what}");
        assert_eq!(fixture.counts(SECOND_SERVICE), (1, 1), "{what}");
    }
}

#[test]
fn a_repeated_report_counts_once() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    assert_eq!(fixture.available(FIRST, child), []);
    fixture.taken(FIRST, child);
    assert_eq!(fixture.taken(FIRST, child), []);
    assert_eq!(fixture.counts(FIRST), (0, 1));
}

#[test]
fn a_confused_child_fills_no_log() {
    let mut fixture = Fixture::new([inet(25, 10)]);
    let (pid, _) = fixture.spawn(FIRST);
    let garbage = || Event::Report {
        service: FIRST,
        writer: pid,
        report: Err(5),
    };
    let lines = (0..1000).flat_map(|_| logged(&fixture.step(garbage())));
    let lines: Vec<_> = lines.collect();
    assert_eq!(lines.len(), 10);
    let expected =
        format!("service \"25\" (25): child (pid {pid}) sent partial status update (5 bytes)");
    assert_eq!(lines[0], expected);
    fixture.now += Duration::from_secs(60);
    let lines = logged(&fixture.step(garbage()));
    let suppressed = "service \"25\" (25): 990 more bad status updates were not logged";
    assert_eq!(lines, [expected, suppressed.to_owned()]);
}
