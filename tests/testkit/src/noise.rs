//! Measures the delays that the machine causes for any program: a thread starts a small program
//! again and again, like a master, and records when its first byte is late. No master is
//! responsible for that.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use crate::{canary, programs};

const PERIOD: Duration = Duration::from_millis(20);
/// The usual time of a start.
const USUAL: Duration = Duration::from_millis(5);

/// The intervals in which a first byte was late: from its expected to its actual time.
static LATE: Mutex<Vec<(Instant, Instant)>> = Mutex::new(Vec::new());

/// Starts the measurement, once per process.
pub fn watch() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        let program = programs::example(canary::NAME);
        let mut command = Command::new(program);
        command.arg("first-byte").stdout(Stdio::piped());
        let thread = thread::Builder::new()
            .name("noise".to_owned())
            .spawn(move || watch_forever(command));
        thread.expect("a thread");
    });
}

fn watch_forever(mut command: Command) {
    loop {
        let due = Instant::now() + PERIOD + USUAL;
        thread::sleep(PERIOD);
        let mut child = command.spawn().expect("the canary's program");
        let mut said = child.stdout.take().expect("a pipe");
        said.read_exact(&mut [0]).expect("a byte");
        let now = Instant::now();
        if now > due {
            LATE.lock().expect("no panic holds it").push((due, now));
        }
        child.wait().expect("a child");
    }
}

/// How long programs were late in this interval.
pub fn within(begin: Instant, end: Instant) -> Duration {
    let late = LATE.lock().expect("no panic holds it");
    late.iter()
        .map(|&(from, to)| to.min(end).saturating_duration_since(from.max(begin)))
        .sum()
}
