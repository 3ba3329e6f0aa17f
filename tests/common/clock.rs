//! A master of ours whose clock can be turned.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use super::instance::Instance;
use super::puppet::example;

pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Puts it in the place of the instance's master.
    pub fn install(postfix: &mut Instance) -> Self {
        postfix.use_master(&example("turned_clock"));
        let file = postfix.path().join("clock");
        std::fs::write(&file, "0").expect("a clock");
        postfix.environment("MASTER_CLOCK_FILE", file.display());
        Self { file }
    }

    /// So many seconds after it was installed, in addition to the time that has passed.
    pub fn turn(&self, postfix: &Instance, seconds: u32) {
        std::fs::write(&self.file, seconds.to_string()).expect("a clock");
        postfix.master_process().signal(Signal::SIGCHLD);
    }
}
