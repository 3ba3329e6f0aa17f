//! Many clients at a time, each of whom wants to be served.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::client::Client;
use testkit::instance::SOON;

/// Clients at a time.
const CONCURRENCY: usize = 8;
/// A client whose child dies under it tries again, like spamc, and not for ever.
const ATTEMPTS: usize = 20;

/// What became of the clients.
#[derive(Debug, Default)]
pub struct Load {
    pub served: usize,
    /// Clients that nobody has served.
    pub lost: usize,
    /// Connections that broke, after which the client tried again.
    pub broken: usize,
    pub slowest: Duration,
    /// Who served.
    pub children: BTreeSet<i32>,
}

/// So many clients as show a promise in a hurry, or the number that was promised.
pub fn clients() -> usize {
    match std::env::var_os("MASTER_TEST_LONG") {
        Some(_) => 20_000,
        None => 2_000,
    }
}

/// Has clients served, and does something else meanwhile, again and again.
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
                            // One is enough to tell, and the others would take as long.
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

/// Has every client served, each at the first attempt.
#[track_caller]
pub fn serve_all(address: &str, meanwhile: impl FnMut()) -> Load {
    let load = serve(address, clients(), meanwhile);
    let found = (load.served, load.lost, load.broken);
    assert_eq!(found, (clients(), 0, 0), "{load:?}");
    load
}

/// Whether a client was served, perhaps after its connection broke.
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

/// The child that has served, if one has, from the first word to the last.
pub fn talk(address: &str) -> Option<i32> {
    let mut client = Client::try_connect(address).ok()?;
    client.try_say("hello").ok()?;
    let child = client.try_line().ok()?.parse().ok()?;
    (client.try_line().ok()? == "hello").then_some(child)
}
