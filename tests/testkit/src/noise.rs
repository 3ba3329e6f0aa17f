//! What the machine makes every program wait: a thread of the test starts a small program again and
//! again, as a master does, and notes how long its first byte takes. That is no master's fault.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use crate::{canary, programs};

const PERIOD: Duration = Duration::from_millis(20);
/// A program needs its time to start.
const USUAL: Duration = Duration::from_millis(5);

/// When a first byte was late: from when it was due until it came.
static LATE: Mutex<Vec<(Instant, Instant)>> = Mutex::new(Vec::new());

/// Begins to watch, once for the whole process.
pub fn watch() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| {
        let program = programs::example(canary::NAME);
        let mut command = Command::new(program);
        command.arg("first-byte").stdout(Stdio::piped());
        let thread = thread::Builder::new().name("noise".to_owned());
        let thread = thread.spawn(move || watch_forever(command));
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

/// For how much of a time every program was late.
pub fn within(begin: Instant, end: Instant) -> Duration {
    let late = LATE.lock().expect("no panic holds it");
    late.iter()
        .map(|&(from, to)| to.min(end).saturating_duration_since(from.max(begin)))
        .sum()
}
