//! Concurrent clients, each of which must be served.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::client::talk;
use testkit::instance::SOON;

/// The number of concurrent clients.
const CONCURRENCY: usize = 8;
/// Maximum number of attempts: a client whose child dies retries, like spamc.
const ATTEMPTS: usize = 20;

/// The clients' results.
#[derive(Debug, Default)]
pub struct Load {
    pub served: usize,
    /// The number of clients that were not served.
    pub lost: usize,
    /// The number of broken connections, after which the client retried.
    pub broken: usize,
    pub slowest: Duration,
    /// The process IDs of the children that served.
    pub children: BTreeSet<i32>,
}

/// The number of clients: reduced for runs that have to be quick.
pub fn clients() -> usize {
    let is_set = |name| std::env::var_os(name).is_some();
    if is_set("MASTER_TEST_FAULTS") {
        20_000
    } else if is_set("MASTER_TEST_LONG") {
        5_000
    } else {
        2_000
    }
}

/// Serves `clients` clients, and calls `meanwhile` repeatedly.
pub fn serve(address: &str, clients: usize, mut meanwhile: impl FnMut()) -> Load {
    let load = Mutex::new(Load::default());
    let left = AtomicUsize::new(clients);
    let next = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONCURRENCY)
            .map(|_| {
                scope.spawn(|| {
                    while next().is_ok() {
                        if !one_client(address, &load) {
                            // One failure is enough; further clients would take as long.
                            left.store(0, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        while !workers
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            meanwhile();
            std::thread::park_timeout(Duration::from_millis(20));
        }
    });
    load.into_inner().expect("no client panics")
}

/// Serves all clients, each at the first attempt.
#[track_caller]
pub fn serve_all(address: &str, meanwhile: impl FnMut()) -> Load {
    let load = serve(address, clients(), meanwhile);
    let found = (load.served, load.lost, load.broken);
    assert_eq!(found, (clients(), 0, 0), "{load:?}");
    load
}

/// Whether a client was served, perhaps after retries.
fn one_client(address: &str, load: &Mutex<Load>) -> bool {
    for _ in 0..ATTEMPTS {
        let start = Instant::now();
        let served = talk(address);
        let took = start.elapsed();
        let mut load = load.lock().expect("no client panics");
        if let Some(child) = served {
            load.served += 1;
            load.slowest = load.slowest.max(took);
            load.children.insert(child);
            return true;
        }
        load.broken += 1;
        if took >= SOON {
            break;
        }
    }
    load.lock().expect("no client panics").lost += 1;
    false
}
