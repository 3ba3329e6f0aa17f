//! The policy's log lines, and a check that each has a scenario.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::{is_original, test};

use master::policy::Kind;

/// The words that distinguish a line from all others.
#[derive(Clone, Copy)]
struct Words {
    ours: &'static str,
    /// `None` if the original has no such line.
    original: Option<&'static str>,
}

const fn same(words: &'static str) -> Words {
    each(words, words)
}

const fn each(ours: &'static str, original: &'static str) -> Words {
    let original = Some(original);
    Words { ours, original }
}

const fn ours(ours: &'static str) -> Words {
    let original = None;
    Words { ours, original }
}

/// All lines of the policy, by their names in `policy::Kind`. The compiler checks that the list is
/// complete.
macro_rules! lines {
    ($($line:ident = $words:expr;)+) => {
        /// A line of the policy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Line {
            $($line),+
        }

        const _: fn(&Kind) -> Line = |kind| match kind {
            $(Kind::$line { .. } => Line::$line),+
        };

        impl Line {
            const ALL: &[Self] = &[$(Self::$line),+];

            fn entry(self) -> Words {
                match self {
                    $(Self::$line => $words),+
                }
            }
        }
    };
}

lines! {
    Ended = same("process /");
    BadStartup = same(": bad command startup -- throttling");
    Crashing = ours(": children ended abnormally with ");
    Throttled = each(": throttled for ", "throttling command ");
    Unthrottled = each(": no longer throttled, ", "throttle released for command ");
    InVain = ours(" with status 0 and took no client -- ");
    StartLimit = ours(", the most that its start_limit allows -- ");
    SpawnFailed = each(": cannot start a process: ", " fork: ");
    WatchFailed = ours(": cannot watch its listeners: ");
    Stalled = ours(": clients wait although ");
    LimitReached = same(" has reached its process limit ");
    StressBegins = ours(": stress mode begins: ");
    StressEnds = ours(": stress mode ends");
    Added = ours("): added");
    Removed = ours("): removed, ");
    Killing = ours(" did not end in time, sending SIGKILL");
    PartialReport = same(" sent partial status update ");
    ForgedReport = ours(": ignoring status update from pid ");
    StaleReport = same("ignoring status update from child pid ");
    UnknownStatus = same(": ignoring unknown status");
    SentDescriptors = ours(" sent descriptors -- ending it");
    Suppressed = ours(" more bad status updates were not logged");
    ExecHangs = ours("hangs in exec");
    Rogue = ours(": ending rogue process ");
    Overdue = ours(" is still there, sending SIGKILL");
    TooLong = ours(" has had its client for ");
    Lingering = ours(" was told to leave ");
    Recycled = ours(", telling it to leave");
    PoolFull = ours(" children are idle, and the process limit ");
    Terminating = same("terminating on signal ");
    Counts = each(": avail ", " avail ");
    States = ours(": child states: ");
    Spawned = each(": started ", "spawn command ");
    Waking = each(": waking up", "master_wakeup_timer_event: service ");
}

impl Line {
    /// The words that distinguish the line, under the master that is tested.
    ///
    /// # Panics
    /// If the original is tested and has no such line.
    #[track_caller]
    pub fn words(self) -> &'static str {
        if is_original() {
            self.entry().original.expect("a line that the original has")
        } else {
            self.ours()
        }
    }

    /// The words that distinguish the line, under ours.
    pub fn ours(self) -> &'static str {
        self.entry().ours
    }

    /// Waits for a line of this kind that contains all of these details, and returns it.
    #[track_caller]
    pub fn wait(self, postfix: &Instance, details: &[impl AsRef<str>]) -> String {
        let details: Vec<&str> = details.iter().map(AsRef::as_ref).collect();
        let what = format!("{self:?} with {details:?} in the log");
        until(SOON, what, || {
            let mut lines = postfix.log_lines(self.words()).into_iter();
            lines.find(|line| details.iter().all(|detail| line.contains(detail)))
        })
    }

    /// The number of such lines in the log.
    #[track_caller]
    pub fn count(self, postfix: &Instance) -> usize {
        postfix.log_lines(self.words()).len()
    }
}

/// The files with scenarios below a directory, with their text.
pub fn scenarios(directory: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(directory),
        &mut files,
    );
    files.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a test");
        (path, text)
    };
    files.into_iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the tests") {
        let path = entry.expect("a file").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            collect(&path, files);
        } else if name != "lines.rs" && name != "list.rs" {
            files.push(path);
        }
    }
}

/// "a list of every log line that the policy can write [...] and a scenario for each"
#[test]
fn every_line_of_the_policy_has_a_scenario() {
    let scenarios = scenarios("tests/conformance");
    let named = |line: &Line| {
        let mark = format!("Line::{line:?}");
        scenarios.iter().any(|(_, text)| {
            let mut after = text.split(mark.as_str()).skip(1);
            after.any(|rest| !rest.starts_with(char::is_alphanumeric))
        })
    };
    let others = ["tests/ordered", "tests/freeze"].map(self::scenarios);
    let written = |line: &Line| {
        let words = line.ours();
        let mut texts = others.iter().flatten();
        texts.any(|(_, text)| text.contains(words))
    };
    let mut missing = Line::ALL.to_vec();
    missing.retain(|line| !named(line) && !written(line));
    assert_eq!(missing, [], "lines without a scenario");
}
