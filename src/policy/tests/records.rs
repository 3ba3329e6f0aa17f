//! The words, and how loud they are.

use super::*;

const SMTPD: &str = "/usr/lib/postfix/sbin/smtpd";
const COUNTS: Counts = Counts { avail: 1, total: 2 };
const NAMED: &str = "service \"25\" (25)";

fn service() -> Arc<config::Service> {
    Arc::new(inet(25, 10))
}

fn reason() -> String {
    "no room".into()
}

fn ended(status: ExitStatus) -> Record {
    Record::Ended {
        service: service(),
        pid: 7,
        status,
    }
}

/// That the records have these words, and whether they are warnings and details.
fn assert_said(warning: bool, detail: bool, cases: impl IntoIterator<Item = (Record, String)>) {
    for (record, words) in cases {
        assert_eq!(record.to_string(), words);
        assert_eq!(record.is_warning(), warning, "{record}");
        assert_eq!(record.is_detail(), detail, "{record}");
    }
}

#[test]
fn what_somebody_should_look_into_is_a_warning() {
    let cases = [
        (
            ended(ExitStatus::Code(1)),
            format!("process {SMTPD} pid 7 exit status 1"),
        ),
        (
            ended(ExitStatus::Signal(11)),
            format!("process {SMTPD} pid 7 killed by signal 11"),
        ),
        (
            Record::BadStartup(service()),
            format!("{SMTPD}: bad command startup -- throttling"),
        ),
        (
            Record::Crashing {
                service: service(),
                crashed: 12,
            },
            format!(
                "{NAMED}: children ended abnormally with 12 of the last 20 clients -- throttling"
            ),
        ),
        (
            Record::TooLong {
                service: service(),
                pid: 7,
                age: THROTTLE_TIME,
            },
            format!("{NAMED}: process {SMTPD} pid 7 has had its client for 60 s, ending it"),
        ),
        (
            Record::Lingering {
                service: service(),
                pid: 7,
                age: THROTTLE_TIME,
            },
            format!("{NAMED}: process {SMTPD} pid 7 was told to leave 60 s ago, ending it"),
        ),
        (
            Record::SpawnFailed {
                service: service(),
                reason: reason(),
            },
            format!("{NAMED}: cannot start a process: no room -- throttling"),
        ),
        (
            Record::WatchFailed {
                service: service(),
                reason: reason(),
            },
            format!("{NAMED}: cannot watch its listeners: no room -- throttling"),
        ),
        (
            Record::LimitReached(service()),
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
            Record::Killing {
                service: service(),
                pid: 7,
            },
            format!("removed {NAMED}: process {SMTPD} pid 7 did not end in time, sending SIGKILL"),
        ),
        (
            Record::PartialReport {
                service: service(),
                writer: 8,
                length: 5,
            },
            format!("{NAMED}: child (pid 8) sent partial status update (5 bytes)"),
        ),
        (
            Record::ForgedReport {
                service: service(),
                writer: 8,
                claimed: 9,
            },
            format!("{NAMED}: ignoring status update from pid 8 in the name of pid 9"),
        ),
        (
            Record::UnknownStatus {
                service: service(),
                pid: 7,
                value: 2,
            },
            format!("{NAMED}: ignoring unknown status 2 from child pid 7"),
        ),
        (
            Record::Suppressed {
                service: service(),
                count: 990,
            },
            format!("{NAMED}: 990 more bad status updates were not logged"),
        ),
    ];
    assert_said(true, false, cases);
}

#[test]
fn what_goes_as_it_should_is_information() {
    let cases = [
        (
            Record::StressBegins {
                service: service(),
                counts: COUNTS,
            },
            format!(
                "{NAMED}: stress mode begins: the last process that the limit \"10\" allows is \
                 started, avail 1 total 2 max 10"
            ),
        ),
        (
            Record::StressEnds {
                service: service(),
                counts: COUNTS,
            },
            format!("{NAMED}: stress mode ends, avail 1 total 2 max 10"),
        ),
        (
            Record::Throttled {
                service: service(),
                time: THROTTLE_TIME,
                counts: COUNTS,
            },
            format!("{NAMED}: throttled for 60 s, avail 1 total 2 max 10"),
        ),
        (
            Record::Unthrottled {
                service: service(),
                counts: COUNTS,
            },
            format!("{NAMED}: no longer throttled, avail 1 total 2 max 10"),
        ),
        (Record::Added(service()), format!("{NAMED}: added")),
        (
            Record::Removed {
                service: service(),
                counts: COUNTS,
            },
            format!("{NAMED}: removed, avail 1 total 2 max 10"),
        ),
        // It is only late, which is nobody's fault.
        (
            Record::StaleReport {
                service: service(),
                pid: 7,
                generation: 3,
            },
            format!("{NAMED}: ignoring status update from child pid 7 generation 3"),
        ),
        (
            Record::Terminating { signal: 15 },
            "terminating on signal 15".into(),
        ),
    ];
    assert_said(false, false, cases);
}

#[test]
fn what_only_a_verbose_table_says_is_a_detail() {
    let cases = [
        (
            Record::Counts {
                service: service(),
                counts: COUNTS,
            },
            format!("{NAMED}: avail 1 total 2 max 10"),
        ),
        (
            Record::Spawned {
                service: service(),
                pid: 7,
            },
            format!("{NAMED}: started {SMTPD} pid 7"),
        ),
        (Record::Waking(service()), format!("{NAMED}: waking up")),
    ];
    assert_said(false, true, cases);
}
