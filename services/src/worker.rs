//! The main loop of a child. It waits, reports that it is taken, serves, and reports that it is
//! available. It ends after a number of clients, after some time without clients, or when the
//! master ends or tells it to leave.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use master::protocol::Availability;
use nix::unistd::alarm;

use crate::status::Status;
use crate::waiting::{Waiting, Woken};
use crate::{Error, Log};

/// The limits after which a child leaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of clients; 0 for no limit.
    pub(crate) uses: u32,
    /// Maximum time without a client.
    pub(crate) idle: Duration,
    /// Maximum time for one client.
    pub(crate) client: Duration,
    /// An idle child leaves at this time.
    pub(crate) retire: Option<Instant>,
}

impl Limits {
    /// When a child that is idle since `since` leaves.
    pub(crate) fn deadline(&self, since: Instant) -> Option<Instant> {
        // `None` if the time is beyond the range of the clock.
        let idle = since.checked_add(self.idle);
        match (idle, self.retire) {
            (Some(idle), Some(retire)) => Some(idle.min(retire)),
            (idle, retire) => idle.or(retire),
        }
    }
}

/// `uses`, reduced by a random part of at most `percent` percent, so that children that were
/// started together do not end together.
pub(crate) fn spread(uses: u32, percent: u32) -> u32 {
    let range = u64::from(uses) * u64::from(percent) / 100;
    // The standard library's hash tables have a random seed in each process.
    // Children of a template have the same.
    let random = RandomState::new().hash_one(std::process::id());
    // The reduction is at most `uses`, so it fits.
    let less = (random % (range + 1)) as u32;
    match uses {
        0 => 0,
        _ => (uses - less).max(1),
    }
}

/// The main loop of a child, and what it waits with.
#[derive(Debug)]
pub(crate) struct Worker<W = Waiting> {
    pub(crate) status: Status,
    listeners: Arc<[OwnedFd]>,
    pub(crate) waiting: W,
    pub(crate) limits: Limits,
    pub(crate) log: Log,
    uses: u32,
    idle_since: Instant,
}

impl Worker {
    pub(crate) fn begin(
        status: Status,
        listeners: Vec<OwnedFd>,
        limits: Limits,
        log: Log,
    ) -> Result<Self, Error> {
        let waiting =
            Waiting::new(&status, &listeners).map_err(Error::system("cannot wait for clients"))?;
        Ok(Self::new(status, listeners, waiting, limits, log))
    }

    /// Waits for a client. Returns the index of a ready listener, or `None` when it is time to
    /// leave.
    pub(crate) fn next(&self) -> Result<Option<usize>, Error> {
        let deadline = self.limits.deadline(self.idle_since);
        let woken = self.waiting.wait(deadline);
        match woken.map_err(Error::system("cannot wait for clients"))? {
            Woken::Listener(index) => Ok(Some(index)),
            Woken::ToldToLeave => {
                self.log.detail("master disconnect -- exiting");
                Ok(None)
            }
            Woken::Idle => {
                self.log.detail("idle timeout -- exiting");
                Ok(None)
            }
        }
    }
}

impl<W> Worker<W> {
    pub(crate) fn new(
        status: Status,
        listeners: Vec<OwnedFd>,
        waiting: W,
        limits: Limits,
        log: Log,
    ) -> Self {
        Self {
            status,
            listeners: listeners.into(),
            waiting,
            limits,
            log,
            uses: 0,
            idle_since: Instant::now(),
        }
    }

    /// The listeners; [`next`](Worker::next) returns an index into them.
    pub(crate) fn listeners(&self) -> Arc<[OwnedFd]> {
        Arc::clone(&self.listeners)
    }

    /// Serves clients by a call of `act`, which returns their number. Returns false when it is time
    /// to leave. A child that leaves does not report that it is available, because clients would
    /// wait for it in vain.
    ///
    /// A client that takes too long ends the process by SIGALRM, which the master logs.
    pub(crate) fn serve(&mut self, act: impl FnOnce() -> u32) -> bool {
        // The client is served even if the master has ended.
        let _ = self.status.report(Availability::Taken);
        alarm::set(seconds(self.limits.client));
        let served = act();
        alarm::cancel();
        self.uses = self.uses.saturating_add(served);
        self.idle_since = Instant::now();
        if self.limits.uses > 0 && self.uses >= self.limits.uses {
            self.log.detail("enough clients served -- exiting");
            return false;
        }
        self.status.report(Availability::Available)
    }
}

/// The time in whole seconds, at least 1.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::first_log;
    use crate::status::testing::Master;
    use Availability::{Available, Taken};

    #[test]
    fn the_master_learns_when_a_client_is_served_and_when_no_more() {
        let (status, master) = Master::new();
        let limits = Limits {
            uses: 2,
            idle: Duration::from_secs(1),
            client: Duration::from_secs(60),
            retire: None,
        };
        let mut worker = Worker::begin(status, Vec::new(), limits, first_log("test")).unwrap();
        let served = |worker: &mut Worker| {
            worker.serve(|| {
                assert_eq!(master.received(), [Taken]);
                1
            })
        };
        assert!(served(&mut worker));
        assert_eq!(master.received(), [Available]);
        assert!(!served(&mut worker));
        assert_eq!(master.received(), [], "it leaves, and is not available");
    }

    #[test]
    fn a_client_is_served_without_a_master_and_is_the_last() {
        let (status, master) = Master::new();
        drop(master);
        let limits = Limits {
            uses: 0,
            idle: Duration::from_secs(1),
            client: Duration::from_secs(60),
            retire: None,
        };
        let mut worker = Worker::begin(status, Vec::new(), limits, first_log("test")).unwrap();
        let mut served = false;
        assert!(!worker.serve(|| {
            served = true;
            1
        }));
        assert!(served);
    }

    #[test]
    fn children_do_not_all_leave_after_the_same_number_of_clients() {
        let drawn: Vec<u32> = (0..200).map(|_| spread(100, 20)).collect();
        assert!(drawn.iter().all(|uses| (80..=100).contains(uses)));
        assert!(drawn.iter().any(|uses| *uses != drawn[0]), "{drawn:?}");
        assert_eq!(spread(100, 0), 100);
        assert_eq!(spread(0, 50), 0, "no limit stays none");
        assert!((0..200).all(|_| spread(1, 100) == 1));
    }

    #[test]
    fn whichever_limit_comes_first_counts() {
        let now = Instant::now();
        let limits = |idle, retire: Option<u64>| Limits {
            uses: 0,
            idle: Duration::from_secs(idle),
            client: Duration::from_secs(1),
            retire: retire.map(|s| now + Duration::from_secs(s)),
        };
        let at = |s| Some(now + Duration::from_secs(s));
        assert_eq!(limits(5, None).deadline(now), at(5));
        assert_eq!(limits(5, Some(9)).deadline(now), at(5));
        assert_eq!(limits(5, Some(3)).deadline(now), at(3));
        assert_eq!(limits(u64::MAX, None).deadline(now), None);
    }
}
