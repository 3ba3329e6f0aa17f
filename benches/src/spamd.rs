//! Compares SpamAssassin's spamd with the same spamd under our master: the same rules, messages and
//! numbers of children, alternately in each round.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::effort::Effort;
use crate::home;
use crate::process::Process;
use crate::spread::Spread;

/// Debian's.
const SPAMD: &str = "/usr/sbin/spamd";
/// Timeout for each step.
const LIMIT: Duration = Duration::from_secs(300);
/// The numbers of children.
const TEN: usize = 10;
const FIFTY: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Theirs,
    Ours,
}

/// What ours may be at most, or must be at least.
#[derive(Clone, Copy)]
enum Goal {
    Most { factor: f64, more: f64 },
    Least(f64),
    None,
}

const AT_MOST_A_TENTH_MORE: Goal = Goal::Most {
    factor: 1.1,
    more: 0.0,
};
const START: Goal = Goal::Most {
    factor: 1.15,
    more: 0.3,
};
const NEW_CHILD: Goal = Goal::Most {
    factor: 1.0,
    more: 0.2,
};

const MEASURES: [(&str, Goal); 10] = [
    ("memory at the start, MiB", AT_MOST_A_TENTH_MORE),
    ("memory after the messages, MiB", AT_MOST_A_TENTH_MORE),
    ("from the start to the first answer, s", START),
    ("from the start to 10 idle children, s", START),
    ("from the start to 50 idle children, s", Goal::None),
    ("from the end of a child to a new one, s", NEW_CHILD),
    ("messages/s, 1 client", Goal::None),
    ("messages/s, 4 clients", Goal::Least(0.95)),
    ("messages/s, 16 clients", Goal::None),
    ("parent's processor time per message, ms", Goal::None),
];

type Sample = [f64; MEASURES.len()];

/// A spamd that runs. It ends when this is dropped.
struct Spamd {
    process: Child,
    address: SocketAddr,
    began: Instant,
    _directory: TempDir,
}

impl Spamd {
    fn start(kind: Kind, built: &Path, children: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = match kind {
            Kind::Theirs => SPAMD.into(),
            Kind::Ours => home().join("../contrib/spamassassin/spamd"),
        };
        let number = children.to_string();
        let began = Instant::now();
        let process = Command::new(program)
            .env("MASTER", built.join("master"))
            // Otherwise the memory of the same program differs by a tenth from one start to the next.
            .env("PERL_HASH_SEED", "0")
            .args(["-L", "-u", "nobody", "-i", "127.0.0.1", "-s", "null", "-m"])
            .args([&number, "--min-children", &number, "--max-spare", &number])
            .args(["-p", &address.port().to_string(), "-r"])
            .arg(directory.path().join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("spamd")?;
        Ok(Self {
            process,
            address,
            began,
            _directory: directory,
        })
    }

    fn parent(&self) -> Process {
        Process(self.process.id() as i32)
    }

    /// All processes: the parent, and those that it has started, one below the other.
    fn all(&self) -> Vec<Process> {
        let mut all = vec![self.parent()];
        let mut next = 0;
        while let Some(process) = all.get(next) {
            all.extend(
                process
                    .child_pids()
                    .unwrap_or_default()
                    .into_iter()
                    .map(Process),
            );
            next += 1;
        }
        all
    }

    fn children(&self) -> Vec<Process> {
        self.all()
            .into_iter()
            .filter(|process| is_child(*process))
            .collect()
    }

    /// Waits until this many children wait for clients; the time since the start.
    fn wait_for_children(&self, count: usize) -> Result<Duration> {
        let end = Instant::now() + LIMIT;
        loop {
            let children = self.children();
            let idle = children.iter().filter(|child| child.waits()).count();
            if idle == count && children.len() == count {
                return Ok(self.began.elapsed());
            }
            ensure!(Instant::now() < end, "{idle} of {count} children are idle");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for an answer; the time since the start.
    fn wait_for_answer(&self) -> Result<Duration> {
        let end = Instant::now() + LIMIT;
        while ask(self.address, b"PING SPAMC/1.2\r\n\r\n").is_err() {
            ensure!(Instant::now() < end, "no answer");
            thread::sleep(Duration::from_millis(2));
        }
        Ok(self.began.elapsed())
    }

    /// The memory of all processes, in MiB; what they share is counted once.
    fn memory(&self) -> Result<f64> {
        let mut sum = 0;
        for process in self.all() {
            sum += process.memory()?.pss;
        }
        Ok(sum as f64 / 1024.0)
    }

    /// The processor time of the processes that serve no clients, in seconds.
    fn cpu(&self) -> Result<f64> {
        let mut sum = Duration::ZERO;
        for process in self.all().into_iter().filter(|process| !is_child(*process)) {
            sum += process.cpu()?;
        }
        Ok(sum.as_secs_f64())
    }

    /// Has messages checked; how many in a second.
    fn rate(&self, messages: usize, clients: usize) -> Result<f64> {
        let left = AtomicUsize::new(messages);
        let next = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        let began = Instant::now();
        thread::scope(|scope| {
            let worker = || -> Result<()> {
                while let Ok(nth) = next() {
                    ask(self.address, &request(nth))?;
                }
                Ok(())
            };
            let workers: Vec<_> = (0..clients).map(|_| scope.spawn(worker)).collect();
            let mut results = workers
                .into_iter()
                .map(|worker| worker.join().map_err(|_| anyhow!("a client panicked"))?);
            results.try_for_each(|result| result)
        })?;
        Ok(messages as f64 / began.elapsed().as_secs_f64())
    }

    /// Ends a child; the time until there is another one that waits.
    fn replace_child(&self) -> Result<Duration> {
        let before = self.children();
        let ended = before.first().context("a child")?;
        kill(Pid::from_raw(ended.0), Signal::SIGKILL)?;
        let began = Instant::now();
        loop {
            let is_new = |child: &Process| !before.iter().any(|old| old.0 == child.0);
            if self
                .children()
                .iter()
                .any(|child| is_new(child) && child.waits())
            {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < LIMIT, "no new child");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Spamd {
    fn drop(&mut self) {
        let all = self.all();
        let _ = kill(Pid::from_raw(self.parent().0), Signal::SIGTERM);
        let _ = self.process.wait();
        let end = Instant::now() + LIMIT;
        // They would disturb the next measurement.
        while all.iter().any(|process| process.runs()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn is_child(process: Process) -> bool {
    let name = fs::read(format!("/proc/{}/cmdline", process.0));
    name.is_ok_and(|name| name.starts_with(b"spamd child"))
}

/// Sends a request and reads the whole answer.
fn ask(address: SocketAddr, request: &[u8]) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("SPAMD/1.") && answer.contains(" 0 "),
        "{answer:?}"
    );
    Ok(())
}

/// One of some messages of different lengths.
fn request(nth: usize) -> Vec<u8> {
    let lines = [5, 40, 200][nth % 3];
    let line = "We are pleased to send you the report of last month, with all figures.\r\n";
    let message = format!(
        "From: Ann <ann@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: Report {nth}\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{nth}.report@mail.example.org>\r\n\
         \r\n{}",
        line.repeat(lines)
    );
    let length = message.len();
    format!("CHECK SPAMC/1.2\r\nContent-length: {length}\r\n\r\n{message}").into_bytes()
}

fn sample(kind: Kind, built: &Path, messages: usize) -> Result<Sample> {
    let spamd = Spamd::start(kind, built, TEN)?;
    let first = spamd.wait_for_answer()?;
    let ten = spamd.wait_for_children(TEN)?;
    let memory = spamd.memory()?;
    let before = spamd.cpu()?;
    let [one, four, sixteen] = {
        let mut rates = [0.0; 3];
        for (rate, clients) in rates.iter_mut().zip([1, 4, 16]) {
            *rate = spamd.rate(messages, clients)?;
            spamd.wait_for_children(TEN)?;
        }
        rates
    };
    let cpu = (spamd.cpu()? - before) / (3 * messages) as f64;
    let used = spamd.memory()?;
    let child = spamd.replace_child()?;
    drop(spamd);
    let fifty = Spamd::start(kind, built, FIFTY)?.wait_for_children(FIFTY)?;
    let [first, ten, fifty, child] = [first, ten, fifty, child].map(|time| time.as_secs_f64());
    Ok([
        memory,
        used,
        first,
        ten,
        fifty,
        child,
        one,
        four,
        sixteen,
        cpu * 1e3,
    ])
}

/// Measures both in `rounds` rounds. Returns a table in Markdown, which is empty if spamd is not
/// installed, and whether a goal was missed.
pub fn measure(built: &Path, effort: Effort, rounds: usize) -> Result<(String, bool)> {
    if !Path::new(SPAMD).exists() {
        eprintln!("left out: Debian's package spamd is not installed");
        return Ok(Default::default());
    }
    let messages = effort.ordered / 25;
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        eprintln!("spamd: round {} of {rounds}", round + 1);
        for at in [round % 2, 1 - round % 2] {
            let kind = [Kind::Theirs, Kind::Ours][at];
            samples[at].push(sample(kind, built, messages)?);
        }
    }
    Ok(markdown(&samples, messages))
}

fn markdown(samples: &[Vec<Sample>; 2], messages: usize) -> (String, bool) {
    let mut missed = false;
    let mut text = String::from(
        "| | spamd | under our master | ratio | goal | reached |\n|---|---:|---:|---:|---|---|\n",
    );
    for (at, (what, goal)) in MEASURES.into_iter().enumerate() {
        let [theirs, ours] = samples.each_ref().map(|samples| {
            let values: Vec<f64> = samples.iter().map(|sample| sample[at]).collect();
            Spread::of(&values)
        });
        let (reached, limit) = match goal {
            Goal::Most { factor, more } => (
                Some(ours.median <= theirs.median * factor + more),
                match more > 0.0 {
                    true => format!("<= {factor} and {more} s"),
                    false => format!("<= {factor}"),
                },
            ),
            Goal::Least(factor) => (
                Some(ours.median >= theirs.median * factor),
                format!(">= {factor}"),
            ),
            Goal::None => (None, String::new()),
        };
        missed |= reached == Some(false);
        let reached = reached.map_or("", |reached| if reached { "yes" } else { "NO" });
        let ratio = ours.median / theirs.median;
        let (theirs, ours) = (theirs.text(), ours.text());
        let _ = writeln!(
            text,
            "| {what} | {theirs} | {ours} | {ratio:.2} | {limit} | {reached} |"
        );
    }
    let _ = write!(
        text,
        "\nDebian's spamd, with its own parent and as the template of a preloaded pool \
         (`contrib/spamassassin`), with the same rules and without network tests. Memory is the sum of all \
         processes' proportional set sizes, with ten children, and after {messages} messages by \
         each of 1, 4 and 16 clients. The parent is spamd's, or our master with its template.\n"
    );
    (text, missed)
}
