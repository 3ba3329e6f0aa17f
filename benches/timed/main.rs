//! Our master with a clock that notes how long it was busy: whenever the loop looks at it, the
//! processor time since it last did goes into the file that `MASTER_TIMES_FILE` names, one line of
//! nanoseconds for each stretch that is worth one. In such a stretch no client is served.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use master::policy::Time;
use master::start::{Clock, SystemClock};
use nix::time::{ClockId, clock_gettime};

/// Nobody notices less.
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
            // Opened here: at its start the master closes what it did not open.
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
    master::start::main(Box::new(Timed {
        path: path.expect("MASTER_TIMES_FILE names a file").into(),
        file: OnceCell::new(),
        last: Cell::default(),
    }))
}
