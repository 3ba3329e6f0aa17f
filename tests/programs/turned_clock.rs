//! The master with a clock that a test can turn: to the machine's own it adds the seconds in the
//! file that `MASTER_CLOCK_FILE` names. A master that sleeps looks at it again in its next
//! turn, which a reader of its status brings about.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use master::policy::Time;
use master::start::{Clock, SystemClock};

#[derive(Debug)]
struct TurnedClock {
    file: PathBuf,
}

impl Clock for TurnedClock {
    fn now(&self) -> Time {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let turned = text.trim().parse().unwrap_or(0);
        SystemClock.now() + Duration::from_secs(turned)
    }
}

fn main() -> ExitCode {
    let file = std::env::var_os("MASTER_CLOCK_FILE");
    let file = file.expect("MASTER_CLOCK_FILE names a file").into();
    master::start::main(Box::new(TurnedClock { file }))
}
