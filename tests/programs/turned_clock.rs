//! The master with a clock that a test can turn: it adds the seconds in the file in
//! `MASTER_CLOCK_FILE` to the machine's clock. A sleeping master reads the clock in its next turn,
//! which a request for its status causes.

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
    let file = std::env::var_os("MASTER_CLOCK_FILE")
        .expect("MASTER_CLOCK_FILE names a file")
        .into();
    master::start::main(std::rc::Rc::new(TurnedClock { file }))
}
