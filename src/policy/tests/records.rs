//! The words, and how loud they are.

use super::*;

const SMTPD: &str = "/usr/lib/postfix/sbin/smtpd";
const COUNTS: Counts = Counts { avail: 1, total: 2 };
const NAMED: &str = "service \"25\" (25)";

/// A record about the child with pid 7.
fn record(kind: Kind) -> Record {
    Record::new(Some(Arc::new(inet(25, 10))), Some(7), kind)
}

/// That the records have these words and are that important.
fn assert_said(severity: Severity, cases: impl IntoIterator<Item = (Kind, String)>) {
    for (kind, words) in cases {
        let record = record(kind);
        assert_eq!(record.to_string(), words);
        assert_eq!(record.severity, severity, "{record}");
    }
}

#[test]
fn what_somebody_should_look_into_is_a_warning() {
    let cases = [
        (
            Kind::Ended(ExitStatus::Code(1)),
            format!("process {SMTPD} pid 7 exit status 1"),
        ),
        (
            Kind::Ended(ExitStatus::Signal(11)),
            format!("process {SMTPD} pid 7 killed by signal 11"),
        ),
        (
            Kind::BadStartup,
            format!("{SMTPD}: bad command startup -- throttling"),
        ),
        (
            Kind::Crashing(12),
            format!(
                "{NAMED}: children ended abnormally with 12 of the last 20 clients -- throttling"
            ),
        ),
        (
            Kind::TooLong(THROTTLE_TIME),
            format!("{NAMED}: process {SMTPD} pid 7 has had its client for 60 s, ending it"),
        ),
        (
            Kind::Lingering(THROTTLE_TIME),
            format!("{NAMED}: process {SMTPD} pid 7 was told to leave 60 s ago, ending it"),
        ),
        (
            Kind::SpawnFailed(SpawnFailure::System(NO_ROOM)),
            format!("{NAMED}: cannot start a process: Cannot allocate memory -- throttling"),
        ),
        (
            Kind::WatchFailed(NO_ROOM),
            format!("{NAMED}: cannot watch its listeners: Cannot allocate memory -- throttling"),
        ),
        (
            Kind::LimitReached,
            format!(
                "{NAMED} has reached its process limit \"10\": new clients may experience \
                 noticeable delays\n\
                 to let more clients in at a time, raise the maxproc column of this service in \
                 master.cf, or shorten the time that a client takes\n\
                 settings that adapt to such stress are explained in \
                 https://www.postfix.org/STRESS_README.html"
            ),
        ),
        (
            Kind::Killing,
            format!("removed {NAMED}: process {SMTPD} pid 7 did not end in time, sending SIGKILL"),
        ),
        (
            Kind::PartialReport(5),
            format!("{NAMED}: child (pid 7) sent partial status update (5 bytes)"),
        ),
        (
            Kind::ForgedReport(9),
            format!("{NAMED}: ignoring status update from pid 7 in the name of pid 9"),
        ),
        (
            Kind::UnknownStatus(2),
            format!("{NAMED}: ignoring unknown status 2 from child pid 7"),
        ),
        (
            Kind::Suppressed(990),
            format!("{NAMED}: 990 more bad status updates were not logged"),
        ),
    ];
    assert_said(Severity::Warning, cases);
}

#[test]
fn what_goes_as_it_should_is_information() {
    let cases = [
        (
            Kind::StressBegins(COUNTS),
            format!(
                "{NAMED}: stress mode begins: the last process that the limit \"10\" allows is \
                 started, avail 1 total 2 max 10"
            ),
        ),
        (
            Kind::StressEnds(COUNTS),
            format!("{NAMED}: stress mode ends, avail 1 total 2 max 10"),
        ),
        (
            Kind::Throttled(THROTTLE_TIME, COUNTS),
            format!("{NAMED}: throttled for 60 s, avail 1 total 2 max 10"),
        ),
        (
            Kind::Unthrottled(COUNTS),
            format!("{NAMED}: no longer throttled, avail 1 total 2 max 10"),
        ),
        (Kind::Added, format!("{NAMED}: added")),
        (
            Kind::Removed(COUNTS),
            format!("{NAMED}: removed, avail 1 total 2 max 10"),
        ),
        // It is only late, which is no fault.
        (
            Kind::StaleReport(3),
            format!("{NAMED}: ignoring status update from child pid 7 generation 3"),
        ),
        (Kind::Terminating(15), "terminating on signal 15".into()),
    ];
    assert_said(Severity::Info, cases);
}

#[test]
fn what_only_a_verbose_table_says_is_a_detail() {
    let cases = [
        (
            Kind::Counts(COUNTS),
            format!("{NAMED}: avail 1 total 2 max 10"),
        ),
        (Kind::Spawned, format!("{NAMED}: started {SMTPD} pid 7")),
        (Kind::Waking, format!("{NAMED}: waking up")),
    ];
    assert_said(Severity::Detail, cases);
}
