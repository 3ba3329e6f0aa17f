//! The child's reports to the master.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use master::protocol::{Availability, StatusReport, pool};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::write;

use crate::sys;

/// Maximum time for the master to read a report, in milliseconds.
const TIMEOUT: u16 = 60_000;

/// The child's end of the status channel, or of the channel of an ordered pool.
#[derive(Debug)]
pub(crate) struct Status {
    channel: OwnedFd,
    generation: u32,
    ordered: bool,
}

impl Status {
    pub(crate) fn new(channel: OwnedFd, generation: u32) -> Self {
        Self {
            ordered: sys::is_ordered(&channel),
            channel,
            generation,
        }
    }

    /// The channel of a child that a template has forked.
    pub(crate) fn of_child(channel: OwnedFd, generation: u32, ordered: bool) -> Self {
        Self {
            channel,
            generation,
            ordered,
        }
    }

    /// Another descriptor of the channel.
    pub(crate) fn try_clone(&self) -> std::io::Result<OwnedFd> {
        self.channel.try_clone()
    }

    /// Whether the channel is that of an ordered pool.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// Reports to the master whether this process can take a client; false if the master has ended.
    pub(crate) fn report(&self, availability: Availability) -> bool {
        // A process ID fits into a `pid_t`.
        let pid = std::process::id() as i32;
        if self.ordered {
            self.write(&match availability {
                Availability::Taken => pool::Report::Busy.encode(pid),
                Availability::Available => pool::Report::Idle.encode(pid),
            })
        } else {
            self.write(&self.record(pid, availability))
        }
    }

    fn record(&self, pid: i32, availability: Availability) -> [u8; StatusReport::SIZE] {
        let report = StatusReport {
            pid,
            generation: self.generation,
            available: match availability {
                Availability::Taken => 0,
                Availability::Available => 1,
            },
        };
        report.encode()
    }

    fn write(&self, record: &[u8]) -> bool {
        loop {
            match write(&self.channel, record) {
                Ok(written) => return written == record.len(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if self.has_room() => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits until the channel has room.
    fn has_room(&self) -> bool {
        let mut fds = [PollFd::new(self.channel.as_fd(), PollFlags::POLLOUT)];
        matches!(
            poll(&mut fds, PollTimeout::from(TIMEOUT)),
            Ok(1..) | Err(Errno::EINTR)
        )
    }
}

impl AsFd for Status {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// The generation in the variable `GENERATION`, in octal.
pub(crate) fn generation(variable: &OsStr) -> Option<u32> {
    u32::from_str_radix(variable.to_str()?, 8).ok()
}

/// The master's end of a channel, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    /// The master's end, which reads the child's reports.
    pub(crate) struct Master(pub(super) UnixDatagram);

    impl Master {
        /// A channel of generation 0o17.
        pub(crate) fn new() -> (Status, Self) {
            let (ours, theirs) = UnixDatagram::pair().unwrap();
            theirs.set_nonblocking(true).unwrap();
            (Status::new(ours.into(), 0o17), Self(theirs))
        }

        /// The reports since the last call.
        pub(crate) fn received(&self) -> Vec<Availability> {
            let mut record = [0; 100];
            let mut reports = Vec::new();
            while let Ok(length) = self.0.recv(&mut record) {
                let report = StatusReport::decode(&record[..length]);
                reports.push(report.and_then(StatusReport::availability).unwrap());
            }
            reports
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Master;
    use super::*;

    #[test]
    fn a_report_names_this_process_and_its_generation() {
        let (status, Master(theirs)) = Master::new();
        assert!(status.report(Availability::Available));
        let mut record = [0; 100];
        let length = theirs.recv(&mut record).unwrap();
        let report = StatusReport::decode(&record[..length]).unwrap();
        assert_eq!(report.pid, std::process::id() as i32);
        assert_eq!(report.generation, 0o17);
        assert_eq!(report.availability(), Some(Availability::Available));
    }

    #[test]
    fn a_report_without_a_master_fails() {
        let (status, master) = Master::new();
        drop(master);
        assert!(!status.report(Availability::Taken));
    }

    #[test]
    fn the_generation_is_octal() {
        assert_eq!(generation(OsStr::new("17")), Some(0o17));
        for bad in ["", "8", "x", "-1"] {
            assert_eq!(generation(OsStr::new(bad)), None);
        }
    }
}
