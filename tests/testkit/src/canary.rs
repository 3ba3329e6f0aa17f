//! The canary: while a test runs a master of ours, a client comes every 10 ms to a service that the
//! test does not touch. Nothing that a test does to the master or to other services may keep this
//! client waiting.
//!
//! `MASTER_TEST_CANARY=1` turns it on. An installation then has a service more, whose every client
//! needs a child of its own, so that each sample needs a turn of the master. A test that it
//! would disturb, because it counts all services or lets the master start no child, says
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

/// The name of the service and of its command.
pub const NAME: &str = "canary";
const PERIOD: Duration = Duration::from_millis(10);
/// No client waits longer for its first byte.
const LIMIT: Duration = Duration::from_millis(250);
/// A client that waits this long has waited for the master, which may have come back meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether masters are watched.
pub fn is_on() -> bool {
    std::env::var_os("MASTER_TEST_CANARY").is_some()
}

/// The line of the service in master.cf.
pub fn line() -> String {
    format!("{NAME} unix - - n - 0 {NAME}")
}

/// A client that comes again and again.
pub struct Canary {
    stop: Arc<AtomicBool>,
    /// Held while a client is there.
    turn: Arc<Mutex<()>>,
    thread: Option<JoinHandle<Samples>>,
    master: Process,
    log: Box<dyn Fn() -> String + Send + Sync>,
}

/// What the clients have seen.
#[derive(Default)]
struct Samples {
    count: usize,
    worst: Wait,
}

/// How long a client waited.
#[derive(Clone, Copy, Debug, Default)]
struct Wait {
    all: Duration,
    /// How much of that the client, the master and the child were ready to run, and others ran; or,
    /// if more, every program's start was late. That is the machine's doing, and not the master's.
    machine: Duration,
}

impl Wait {
    fn own(self) -> Duration {
        self.all.saturating_sub(self.machine)
    }
}

impl Canary {
    /// Begins to sample a socket of a master; `log` is what that has logged so far.
    pub fn watch(
        socket: PathBuf,
        master: Process,
        log: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        let (stop, turn) = (Arc::default(), Arc::default());
        let (stopped, turns) = (Arc::clone(&stop), Arc::clone(&turn));
        // In the caller's namespaces, as all that the test starts.
        let thread = thread::Builder::new().name(NAME.to_owned());
        let thread = thread.spawn(move || sample(&socket, master, &stopped, &turns));
        Self {
            stop,
            turn,
            thread: Some(thread.expect("a thread")),
            master,
            log: Box::new(log),
        }
    }

    /// Keeps clients away while this is held, and waits until the last one's child is gone.
    #[track_caller]
    pub fn pause(&self) -> MutexGuard<'_, ()> {
        let paused = self.turn.lock().expect("no panic holds it");
        until(SOON, "the canary's child to be gone", || {
            !self.master.has_child_with_name(NAME)
        });
        paused
    }

    /// Ends, says what was seen, and returns a complaint if that was too much.
    pub fn finish(mut self) -> Option<String> {
        let Samples { count, worst } = self.end();
        let name = thread::current().name().unwrap_or("test").to_owned();
        eprintln!("{name}: canary: {count} samples, at most {worst:?}");
        // Clients of a master that ends are told so by the end of their connections.
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

/// What a client waits for the master, if it does.
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

/// Waits for the first byte, and returns how long the child waited to run. Nothing, where the
/// client has not waited for the master: not for one that a test has stopped or killed, nor for a
/// service that a test has removed.
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
            // It ends, or has removed the service.
            Ok(0) => return late,
            Ok(length) => return Some(ready_time(&bytes[1..length])),
            Err(why) if why.kind() != ErrorKind::WouldBlock => return late,
            Err(_) if master.is_stopped() => return None,
            Err(_) if stop.load(Ordering::Relaxed) => return late,
            Err(_) if begin.elapsed() > PATIENCE => return late,
            Err(_) => {}
        }
    }
}

/// What the child says of itself, in nanoseconds.
fn ready_time(text: &[u8]) -> Duration {
    let text = String::from_utf8_lossy(text);
    Duration::from_nanos(text.parse().unwrap_or_default())
}
