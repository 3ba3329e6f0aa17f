//! Measures how readers of the status document affect the clients of services. One crowd of readers
//! connects and does not read; the other reads everything and reconnects at once. All processes
//! share one processor, so that the readers' cost reduces the service's throughput. The crowd's own
//! work does so, too: therefore its processor time and the master's are also measured while there
//! are no clients. This works even if the machine is too busy for the throughput to be meaningful.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use master::status::SOCKET;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::effort::Effort;
use crate::load;
use crate::processor::OneProcessor;
use crate::spread::{Goal, Spread};
use crate::system::{Running, System, table};

const READERS: usize = 200;
const SERVICES: [usize; 2] = [100, 5_000];
/// How long the master is measured without clients.
const WATCHED: Duration = Duration::from_secs(2);
/// The master disconnects a reader that does not read before this time.
const SILENCE: Duration = Duration::from_secs(1);
/// Timeout for the connection of the crowd.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The goal for the throughput, relative to that without readers.
const THROUGHPUT: Goal = Goal::AtLeast(0.95);
/// The goal for the crowd's share of all processors, including the master's work for it.
const SHARE: Goal = Goal::AtMost(0.05);

#[derive(Clone, Copy)]
enum Crowd {
    None,
    Silent,
    Hammering,
}

impl Crowd {
    const ALL: [Self; 3] = [Self::None, Self::Silent, Self::Hammering];

    fn described(self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Silent => format!("{READERS} that never read"),
            Self::Hammering => format!("{READERS} that hammer"),
        }
    }

    /// The work of one reader.
    fn run_reader(self, visits: &Visits) {
        visits.started.fetch_add(1, Ordering::Relaxed);
        if matches!(self, Self::None) {
            return;
        }
        while !visits.end.load(Ordering::Relaxed) {
            // The queue of connections is full: try again.
            let Ok(mut stream) = UnixStream::connect(&visits.socket) else {
                continue;
            };
            match self {
                Self::Silent => thread::sleep(SILENCE),
                // A reader that was disconnected has read as much as it could.
                _ => drop(stream.read_to_end(&mut Vec::new())),
            }
        }
    }
}

/// The shared state of the crowd.
struct Visits {
    socket: PathBuf,
    /// The number of readers that have started.
    started: AtomicUsize,
    end: AtomicBool,
}

impl Visits {
    /// Waits until all readers have started.
    fn wait_for_all(&self) -> Result<()> {
        let end = Instant::now() + TIMEOUT;
        while self.started.load(Ordering::Relaxed) < READERS {
            ensure!(Instant::now() < end, "the readers do not start");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// The result with one crowd.
#[derive(Clone, Copy)]
struct Sample {
    rate: f64,
    /// Processor seconds per second: the master's, and the crowd's.
    master: f64,
    crowd: f64,
    /// The master's private memory, in KiB.
    private: f64,
}

fn sample(master: &Path, effort: Effort, services: usize, crowd: Crowd) -> Result<Sample> {
    let _processor = OneProcessor::take()?;
    let system = System::new()?;
    system.configure(&table(services, "warm"))?;
    let running = system.start(master)?;
    let socket = system.socket("s0");
    load::run(&socket, effort.connections / 4, 8)?;
    running.rest()?;
    let visits = Visits {
        socket: system.path("queue").join(SOCKET),
        started: AtomicUsize::new(0),
        end: AtomicBool::new(false),
    };
    thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| crowd.run_reader(&visits));
        }
        let there = visits.wait_for_all();
        let sample = there.and_then(|()| with_crowd(&running, &socket, effort));
        visits.end.store(true, Ordering::Relaxed);
        // Stopping the master disconnects readers that still wait.
        drop(running);
        sample
    })
}

fn with_crowd(running: &Running<'_>, socket: &Path, effort: Effort) -> Result<Sample> {
    let process = running.process();
    let (master, crowd, begin) = (process.cpu()?, own_cpu()?, Instant::now());
    thread::sleep(WATCHED);
    let share = |used: Duration| used.as_secs_f64() / begin.elapsed().as_secs_f64();
    let (master, crowd) = (share(process.cpu()? - master), share(own_cpu()? - crowd));
    let load = load::run(socket, effort.connections * 3, 8)?;
    Ok(Sample {
        rate: load.rate(),
        master,
        crowd,
        private: process.memory()?.private as f64,
    })
}

/// The processor time of all threads of this process.
fn own_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    let micros = times.map(|time| time.num_microseconds().unsigned_abs());
    Ok(Duration::from_micros(micros.iter().sum()))
}

/// Measures all crowds alternately, in `rounds` rounds. Returns a table in Markdown, and whether a
/// goal was missed.
pub fn measure(master: &Path, effort: Effort, rounds: usize) -> Result<(String, bool)> {
    let mut text = String::from(
        "| services | readers | connections/s, 8 at a time | beside none | goal | reached \
         | CPU, master's and crowd's | of all CPUs | goal | reached | private memory, KiB |\n\
         |---:|---|---:|---:|---|---|---:|---:|---|---|---:|\n",
    );
    let processors = thread::available_parallelism()?.get() as f64;
    let mut missed = false;
    for services in SERVICES {
        let mut samples = Crowd::ALL.map(|_| Vec::new());
        for round in 0..rounds {
            eprintln!("{services} services: round {} of {rounds}", round + 1);
            // Rotate the order in each round.
            for at in (0..Crowd::ALL.len()).map(|n| (round + n) % Crowd::ALL.len()) {
                let sample = sample(master, effort, services, Crowd::ALL[at]);
                samples[at].push(sample.context(Crowd::ALL[at].described())?);
            }
        }
        missed |= rows(services, &samples, processors, &mut text);
    }
    let _ = write!(
        text,
        "\nThe master, its readers and its clients share one processor. The processor time in a \
         second, in seconds, is measured without clients. The memory is the master's while the \
         readers are connected and clients are served.\n"
    );
    Ok((text, missed))
}

/// Writes a row for each crowd; true if a goal was missed.
fn rows(services: usize, samples: &[Vec<Sample>; 3], processors: f64, text: &mut String) -> bool {
    let spread = |samples: &[Sample], of: fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().map(of).collect();
        Spread::of(&values)
    };
    let alone = spread(&samples[0], |sample| sample.rate).median;
    let mut missed = false;
    for (kind, samples) in Crowd::ALL.iter().zip(samples) {
        let rate = spread(samples, |sample| sample.rate);
        let master = spread(samples, |sample| sample.master);
        let crowd = spread(samples, |sample| sample.crowd);
        let both = spread(samples, |sample| sample.master + sample.crowd);
        let private = spread(samples, |sample| sample.private);
        let ratio = rate.median / alone;
        let part = both.median / processors;
        let goals = [(THROUGHPUT, ratio), (SHARE, part)];
        let [throughput, share_goal] = goals.map(|(goal, value)| {
            missed |= goal.reached(value) == "NO";
            format!("{} | {}", goal.text(), goal.reached(value))
        });
        let _ = writeln!(
            text,
            "| {services} | {} | {} | {ratio:.2} | {throughput} | {:.3} + {:.3} | {part:.3} \
             | {share_goal} | {} |",
            kind.described(),
            rate.text(),
            master.median,
            crowd.median,
            private.text()
        );
    }
    missed
}
