//! The canary: while a test runs our master, a client connects every 10 ms to a service that the
//! test does not use. Nothing that a test does to the master or to other services may delay this
//! client.
//!
//! `MASTER_TEST_CANARY=1` enables it. Each installation then has an additional service that starts
//! a child for each client, so that each sample needs a turn of the master. A test that this would
//! disturb, because it counts all services or prevents the master from starting children, calls
//! [`Instance::unwatched`].
//!
//! [`Instance::unwatched`]: crate::instance::Instance::unwatched

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use crate::instance::SOON;
use crate::noise;
use crate::poll::until;
use crate::process::{Process, thread_waited_to_run};

/// The name of the service, and of its command.
pub const NAME: &str = "canary";
const PERIOD: Duration = Duration::from_millis(10);
/// Maximum time to a client's first byte.
const LIMIT: Duration = Duration::from_millis(250);
/// Timeout of a client.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the canary is enabled.
pub fn is_on() -> bool {
    std::env::var_os("MASTER_TEST_CANARY").is_some()
}

/// The line of the service in master.cf.
pub fn line() -> String {
    format!("{NAME} unix - - n - 0 {NAME}")
}

/// A client that connects repeatedly.
pub struct Canary {
    stop: Arc<AtomicBool>,
    /// Locked while a client is connected.
    turn: Arc<Mutex<()>>,
    thread: Option<JoinHandle<Samples>>,
    master: Process,
    log: Box<dyn Fn() -> String + Send + Sync>,
}

/// The measurements.
#[derive(Default)]
struct Samples {
    count: usize,
    worst: Wait,
}

/// The wait of a client.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    all: Duration,
    /// The part of it for which the client, the master and the child were ready to run but did not
    /// run; or, if longer, for which the start of any program was late. The machine causes it, not
    /// the master.
    machine: Duration,
}

impl Wait {
    fn own(self) -> Duration {
        self.all.saturating_sub(self.machine)
    }
}

impl Canary {
    /// Starts sampling a master's socket; `log` returns the master's log.
    pub fn watch(
        socket: PathBuf,
        master: Process,
        log: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        let (stop, turn) = (Arc::default(), Arc::default());
        let (stopped, turns) = (Arc::clone(&stop), Arc::clone(&turn));
        // In the caller's namespaces, like everything that the test starts.
        let thread = thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || sample(&socket, master, &stopped, &turns));
        Self {
            stop,
            turn,
            thread: Some(thread.expect("a thread")),
            master,
            log: Box::new(log),
        }
    }

    /// Keeps clients away while the guard is held, and waits until the last one's child has ended.
    #[track_caller]
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        let paused = self.turn.lock().expect("no panic holds it");
        until(SOON, "the canary's child to be gone", || {
            !self.master.has_child_with_name(NAME)
        });
        paused
    }

    /// Ends the sampling, prints the result, and returns a complaint if a wait was too long.
    pub fn finish(mut self) -> Option<String> {
        let Samples { count, worst } = self.end();
        let name = thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{name}: canary: {count} samples, at most {worst:?}");
        // A master that ends closes its clients' connections.
        let ends = (self.log)().contains("terminating on signal");
        (worst.own() > LIMIT && !ends).then(|| {
            let own = worst.own();
            format!("the canary waited {own:?} for its first byte (tests/testkit/src/canary.rs)")
        })
    }

    fn end(&mut self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("the canary does not panic")
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.end();
        }
    }
}

fn sample(socket: &Path, master: Process, stop: &AtomicBool, turn: &Mutex<()>) -> Samples {
    let mut samples = Samples::default();
    while !stop.load(Ordering::Relaxed) && master.runs() {
        let guard = turn.lock().expect("no panic holds it");
        if let Some(wait) = visit(socket, master, stop) {
            samples.count += 1;
            if wait.own() > samples.worst.own() {
                samples.worst = wait;
            }
        }
        drop(guard);
        sleep(PERIOD);
    }
    samples
}

/// Connects once and returns the wait; `None` if the master was not responsible for it.
fn visit(socket: &Path, master: Process, stop: &AtomicBool) -> Option<Wait> {
    let waited = || master.waited_to_run() + thread_waited_to_run();
    let (begin, before) = (Instant::now(), waited());
    let mut client = UnixStream::connect(socket).ok()?;
    let child = first_byte(&mut client, begin, master, stop)?;
    let end = Instant::now();
    let machine = (waited() - before + child).max(noise::within(begin, end));
    Some(Wait {
        all: end - begin,
        machine,
    })
}

/// Waits for the first byte, and returns how long the child waited to run. `None` if the master was
/// not responsible for the wait: a test has stopped or killed it, or has removed the service.
fn first_byte(
    client: &mut UnixStream,
    begin: Instant,
    master: Process,
    stop: &AtomicBool,
) -> Option<Duration> {
    client.set_read_timeout(Some(PERIOD)).expect("a time limit");
    let mut bytes = [0; 32];
    loop {
        let late = (begin.elapsed() > LIMIT).then_some(Duration::ZERO);
        match client.read(&mut bytes) {
            // The master ends, or has removed the service.
            Ok(0) => return late,
            Ok(length) => return Some(ready_time(&bytes[1..length])),
            Err(why) if why.kind() != ErrorKind::WouldBlock => return late,
            Err(_) if master.is_stopped() => return None,
            Err(_) if stop.load(Ordering::Relaxed) => return late,
            Err(_) if begin.elapsed() > TIMEOUT => return late,
            Err(_) => {}
        }
    }
}

/// The child's own waiting time, which it sends in nanoseconds.
fn ready_time(text: &[u8]) -> Duration {
    let text = String::from_utf8_lossy(text);
    Duration::from_nanos(text.parse().unwrap_or_default())
}
