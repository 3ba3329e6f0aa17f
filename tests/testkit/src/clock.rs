//! Clocks that can be turned: our master's clock, and the time of day of any master.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use master::status::SOCKET;

use crate::instance::Instance;
use crate::programs::example;

pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Installs it as the instance's master.
    pub fn install(postfix: &mut Instance) -> Self {
        postfix.use_master(&example("turned_clock"));
        let file = postfix.path().join("clock");
        std::fs::write(&file, "0").expect("a clock");
        postfix.environment("MASTER_CLOCK_FILE", file.display());
        Self { file }
    }

    /// Sets the clock to this many seconds after its installation, plus the time that has passed.
    pub fn turn(&self, postfix: &Instance, seconds: u32) {
        std::fs::write(&self.file, seconds.to_string()).expect("a clock");
        // A status request makes the master take another turn, which reads the clock.
        let socket = postfix.queue().join(SOCKET);
        drop(UnixStream::connect(socket).expect("the status socket"));
    }
}

/// The time of day of a master.
pub struct WallClock(PathBuf);

impl WallClock {
    /// Installs it for the instance's master, from its next start on.
    pub fn install(postfix: &mut Instance) -> Self {
        let clock = Self(postfix.path().join("wall-clock"));
        clock.turn(0);
        postfix.environment("WALL_CLOCK_FILE", clock.0.display());
        let library = example("libwall_clock.so");
        postfix.environment("LD_PRELOAD", library.display());
        clock
    }

    /// Sets it to this many seconds after the machine's.
    pub fn turn(&self, seconds: i64) {
        // Overwritten in place, because the master has mapped the file.
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.0);
        let written = file.and_then(|mut file| file.write_all(&seconds.to_ne_bytes()));
        written.expect("a clock");
    }
}
