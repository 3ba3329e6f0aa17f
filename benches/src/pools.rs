//! Compares ordered pools with SpamAssassin's own: spamd's parent and our master with the same
//! children in Perl, and our master with children in Rust, alternately in each round. It also
//! measures the first client's wait, without a running child and with an idle one.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use master::protocol::pool::{Order, SIZE};

use crate::effort::{Effort, RUNS};
use crate::load;
use crate::others::{Setup, Stopped};
use crate::process::Process;
use crate::spawn::cpu;
use crate::spread::{Goal, Spread};
use crate::{home, micros, millis};

/// SpamAssassin's module, in Debian's package.
const MODULE: &str = "/usr/share/perl5/Mail/SpamAssassin/SpamdForkScaling.pm";
/// The number of children in a full pool.
const FULL: usize = 50;
/// Timeout for a client: only a stuck child takes this long. The original waits 300 seconds for
/// one.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Timeout for preparations.
const LIMIT: Duration = Duration::from_secs(60);

/// The size of a pool.
#[derive(Clone, Copy)]
struct Size {
    min: usize,
    idle: usize,
    max: usize,
}

impl Size {
    fn just(count: usize) -> Self {
        Self {
            min: count,
            idle: count,
            max: count,
        }
    }
}

/// A parent and the language of its children.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Theirs,
    Perl,
    Rust,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Theirs, Self::Perl, Self::Rust];

    fn child(self, built: &Path) -> PathBuf {
        match self {
            Self::Rust => built.join("examples/ordered"),
            _ => home().join("ordered-child.pl"),
        }
    }

    /// Starts it without waiting.
    fn start(self, setup: &Setup, size: Size) -> Result<Stopped> {
        let Size { min, idle, max } = size;
        let child = self.child(&setup.built).display().to_string();
        if self == Self::Theirs {
            let sizes = [min, 1, idle, max].map(|number| number.to_string());
            return Stopped::start(
                Command::new(home().join("ordered-parent.pl"))
                    .arg(setup.address.port().to_string())
                    .args(sizes)
                    .arg(child),
            );
        }
        let command = match self {
            // Without a limit on clients, like the other children.
            Self::Rust => format!("{child} -o max_use=0"),
            _ => child,
        };
        let settings = format!(
            "accept = \"ordered\"\nmin_children = {min}\nmin_idle = 1\nmax_idle = {idle}\n"
        );
        let arguments = setup.pool(max, &command, &settings)?;
        Stopped::start(Command::new(setup.built.join("master")).args(arguments))
    }

    fn running(self, built: &Path, size: Size) -> Result<(Setup, Stopped)> {
        let setup = Setup::new(built)?;
        let running = self.start(&setup, size)?;
        wait_for_idle(running.process(), size.idle)?;
        Ok((setup, running))
    }
}

/// Waits until `count` children wait for orders and their parent waits for events.
fn wait_for_idle(parent: Process, count: usize) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let pids = parent.child_pids()?;
        let idle = pids.iter().filter(|pid| Process(**pid).waits()).count();
        if idle == count && parent.waits() {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{idle} of {count} children are idle");
        thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Clone, Copy)]
enum Measure {
    Rate(usize),
    Cpu(usize),
    Fill,
    Stuck,
}

impl Measure {
    const ALL: [Self; 6] = [
        Self::Rate(1),
        Self::Rate(8),
        Self::Cpu(1),
        Self::Cpu(8),
        Self::Fill,
        Self::Stuck,
    ];

    fn described(self) -> (String, Goal) {
        let clients = |clients| match clients {
            1 => "1 at a time".to_owned(),
            n => format!("{n} at a time"),
        };
        match self {
            Self::Rate(8) => ("connections/s, 8 at a time".into(), Goal::AtLeast(2.0)),
            Self::Rate(n) => (format!("connections/s, {}", clients(n)), Goal::None),
            Self::Cpu(n) => (
                format!("parent's CPU per connection, us, {}", clients(n)),
                Goal::AtMost(0.2),
            ),
            Self::Fill => (
                format!("from the start to {FULL} idle children, ms"),
                Goal::None,
            ),
            Self::Stuck => (
                "first byte while the child whose turn it is is stuck, ms".into(),
                Goal::AtMost(0.1),
            ),
        }
    }
}

type Sample = [f64; Measure::ALL.len()];

fn sample(kind: Kind, built: &Path, effort: Effort) -> Result<Sample> {
    let (rate, cpu): (Vec<f64>, Vec<f64>) = {
        let (setup, running) = kind.running(built, Size::just(8))?;
        let process = running.process();
        let mut found = Vec::new();
        for clients in [1, 8] {
            let before = process.cpu()?;
            let mut elapsed = Duration::ZERO;
            for _ in 0..RUNS {
                let visit = || load::greeting(setup.address);
                elapsed += load::run_visits(effort.ordered, clients, visit)?.elapsed;
                wait_for_idle(process, 8)?;
            }
            let connections = (RUNS * effort.ordered) as f64;
            let cpu = micros(process.cpu()? - before) / connections;
            found.push((connections / elapsed.as_secs_f64(), cpu));
        }
        found.into_iter().unzip()
    };
    let fill = fill(kind, built)?;
    Ok([
        rate[0],
        rate[1],
        cpu[0],
        cpu[1],
        millis(fill),
        millis(stuck(kind, built)?),
    ])
}

/// The time from the start until a full pool waits for orders. Nearly all of it is the children's
/// own work, because both parents run the same program for each child.
fn fill(kind: Kind, built: &Path) -> Result<Duration> {
    let setup = Setup::new(built)?;
    let begin = Instant::now();
    let running = kind.start(&setup, Size::just(FULL))?;
    wait_for_idle(running.process(), FULL)?;
    let fill = begin.elapsed();
    let children = running.process().child_pids()?;
    drop(running);
    // Neither parent waits for its children's end, and they would disturb the next measurement.
    wait_for_end(&children)?;
    Ok(fill)
}

/// Waits until all of these processes have ended.
fn wait_for_end(pids: &[i32]) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while pids.iter().any(|pid| Process(*pid).runs()) {
        ensure!(Instant::now() < end, "children stay after their parent");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The wait of a client when the next child in turn is stopped; at most [`TIMEOUT`].
fn stuck(kind: Kind, built: &Path) -> Result<Duration> {
    let (setup, running) = kind.running(built, Size::just(3))?;
    let pids = running.process().child_pids()?;
    let lowest = pids.into_iter().min().context("no children")?;
    let lowest = Pid::from_raw(lowest);
    kill(lowest, Signal::SIGSTOP)?;
    let wait = load::greeting(setup.address);
    kill(lowest, Signal::SIGCONT)?;
    match wait {
        Ok(wait) => Ok(wait),
        Err(error) if is_timeout(&error) => Ok(TIMEOUT),
        Err(error) => Err(error),
    }
}

fn is_timeout(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// The lower bound for a parent's processor time for a connection, one at a time, in microseconds.
/// It is measured with a minimal parent with one child in Perl, which waits for the client, reads
/// the child's messages, and writes the order.
fn least(connections: usize) -> Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (mut channel, theirs) = UnixStream::pair()?;
    let inherited = [theirs.as_fd(), listener.as_fd()];
    for fd in inherited {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    let [five, six] = inherited.map(|fd| fd.as_raw_fd());
    let command = Kind::Perl.child(Path::new("")).display().to_string();
    let mut child = Command::new("/bin/bash")
        .args(["-c", &format!("exec \"$0\" 5<&{five} 6<&{six}"), &command])
        .spawn()?;
    drop(theirs);
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let limit = EpollTimeout::try_from(LIMIT)?;
    let mut ready = [EpollEvent::empty()];
    let mut messages = [0; 16 * SIZE];
    let mut served = || {
        poll.add(&channel, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        poll.wait(&mut ready, limit)?;
        poll.delete(&channel)?;
        let arrivals = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        poll.add(&listener, EpollEvent::new(arrivals, 1))?;
        let before = cpu()?;
        for _ in 0..connections {
            poll.wait(&mut ready, limit)?;
            ensure!(channel.read(&mut messages)? > 0, "the child has gone");
            channel.write_all(&Order::Accept.encode())?;
        }
        Ok(cpu()? - before)
    };
    let spent = thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let visit = || load::greeting(address);
            load::run_visits(connections, 1, visit)
        });
        let spent = served();
        clients.join().map_err(|_| anyhow!("a client panicked"))??;
        spent
    });
    child.kill()?;
    child.wait()?;
    spent.map(|spent| micros(spent) / connections as f64)
}

/// The first client's time to the first byte, with children in Perl that accept by themselves.
fn first_client(built: &Path, min_idle: usize) -> Result<f64> {
    let setup = Setup::new(built)?;
    let child = home()
        .join("../services/examples/child.pl")
        .display()
        .to_string();
    let arguments = setup.pool(10, &child, &format!("min_idle = {min_idle}\n"))?;
    let running = Stopped::start(Command::new(built.join("master")).args(arguments))?;
    wait_for_idle(running.process(), min_idle)?;
    let end = Instant::now() + LIMIT;
    loop {
        match load::echo(setup.address) {
            // Without children to wait for, it may not listen yet.
            Err(error) if is_refused(&error) && Instant::now() < end => {
                thread::sleep(Duration::from_millis(1));
            }
            time => return time.map(millis),
        }
    }
}

/// Whether no process listens yet.
fn is_refused(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Measures everything in `rounds` rounds. Returns a table in Markdown, which is empty if the
/// module is not installed, and whether a goal was missed.
pub fn measure(built: &Path, effort: Effort, rounds: usize) -> Result<(String, bool)> {
    if !Path::new(MODULE).exists() {
        eprintln!("left out: Debian's package spamassassin is not installed");
        return Ok(Default::default());
    }
    let mut samples = Kind::ALL.map(|_| Vec::new());
    let mut first = [const { Vec::new() }; 2];
    let mut floor = Vec::new();
    for round in 0..rounds {
        eprintln!("pools: round {} of {rounds}", round + 1);
        // Rotate the order in each round.
        for at in (0..Kind::ALL.len()).map(|n| (round + n) % Kind::ALL.len()) {
            samples[at].push(sample(Kind::ALL[at], built, effort)?);
        }
        floor.push(least(effort.ordered * RUNS)?);
        for (min_idle, first) in first.iter_mut().enumerate() {
            first.push(first_client(built, min_idle)?);
        }
    }
    Ok(markdown(&samples, &first, Spread::of(&floor)))
}

/// The table, and whether a goal was missed.
fn markdown(samples: &[Vec<Sample>; 3], first: &[Vec<f64>; 2], floor: Spread) -> (String, bool) {
    let mut missed = false;
    let mut text = String::from(
        "| | SpamAssassin's parent, Perl | ours, the same Perl | ours, Rust | ours to theirs, Perl \
         | goal | reached | floor |\n|---|---:|---:|---:|---:|---:|---|---:|\n",
    );
    for (at, measure) in Measure::ALL.iter().enumerate() {
        let spreads = samples.each_ref().map(|samples| {
            let values: Vec<f64> = samples.iter().map(|sample| sample[at]).collect();
            Spread::of(&values)
        });
        let (what, goal) = measure.described();
        let ratio = spreads[1].median / spreads[0].median;
        missed |= goal.reached(ratio) == "NO";
        let [theirs, perl, rust] = spreads.map(Spread::text);
        let _ = writeln!(
            text,
            "| {what} | {theirs} | {perl} | {rust} | {ratio:.3} | {} | {} | {} |",
            goal.text(),
            goal.reached(ratio),
            match measure {
                Measure::Cpu(1) => floor.text(),
                _ => String::new(),
            }
        );
    }
    let [cold, warm] = first.each_ref().map(|values| Spread::of(values).text());
    let _ = write!(
        text,
        "\nBoth parents run the same program for every child, which loads Perl and its modules anew: \
         that is nearly all of the time until {FULL} are idle. (spamd itself forks children that \
         have loaded them before.) They serve a client with the least possible work, \
         `ordered-child.pl`. The children in Rust show the cost of the parent. The floor is a \
         parent with one child in Perl, which waits for a client, reads the child's answer, and \
         writes the order, with three system calls.\n\n\
         A client that is not served for {} s gives up, and counts as served at that time.\n\n\
         The first client of a service with shared listeners and children in Perl waits {cold} \
         ms for its first byte, and {warm} ms with `min_idle = 1`.\n",
        TIMEOUT.as_secs()
    );
    (text, missed)
}
