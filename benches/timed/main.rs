//! Our master with a clock that records how long it was busy. The loop reads the clock; the
//! processor time since the last reading is written to the file in `MASTER_TIMES_FILE`, in
//! nanoseconds, one line for each interval that is long enough. During such an interval no client
//! is served.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use master::policy::Time;
use master::start::{Clock, SystemClock};
use nix::time::{ClockId, clock_gettime};

/// Shorter intervals have no visible effect.
const WORTH_A_LINE: Duration = Duration::from_micros(100);

#[derive(Debug)]
struct Timed {
    path: PathBuf,
    file: OnceCell<File>,
    last: Cell<Duration>,
}

impl Clock for Timed {
    fn now(&self) -> Time {
        let cpu: Duration = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
            .expect("every thread has this clock")
            .into();
        let busy = cpu.saturating_sub(self.last.replace(cpu));
        if busy >= WORTH_A_LINE {
            // Opened here and not earlier, because the master closes unknown descriptors at its
            // start.
            let mut file = self.file.get_or_init(|| {
                let file = File::options().append(true).open(&self.path);
                file.expect("MASTER_TIMES_FILE names a file")
            });
            writeln!(file, "{}", busy.as_nanos()).expect("a file to write to");
        }
        SystemClock.now()
    }
}

fn main() -> ExitCode {
    let path = std::env::var_os("MASTER_TIMES_FILE");
    master::start::main(std::rc::Rc::new(Timed {
        path: path.expect("MASTER_TIMES_FILE names a file").into(),
        file: OnceCell::new(),
        last: Cell::default(),
    }))
}
