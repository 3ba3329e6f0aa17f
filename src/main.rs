//! Postfix's master(8), also for services without Postfix. See `start` for the order in which things
//! happen.

use std::process::ExitCode;
use std::rc::Rc;

use master::start::SystemClock;

fn main() -> ExitCode {
    master::start::main(Rc::new(SystemClock))
}
