//! What a client costs the master, in system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::common::instance::SOON;
use crate::common::poll::until;
use crate::common::process::Process;
use crate::common::skip;
use crate::load::talk;
use crate::needs_root;
use crate::pool::{HANDFUL, Pool, STRACE};

/// Clients, one after the other, for whom the calls are counted.
const CLIENTS: u64 = 200;
/// On a machine that has much else to do, a client takes so long that the master rests in between,
/// and has more to do for the next one. One of so many rounds is not like that.
const ROUNDS: usize = 10;

/// How many system calls a process makes meanwhile, by name.
fn calls_of(process: Process, directory: &Path, meanwhile: impl FnOnce()) -> BTreeMap<String, u64> {
    let summary = directory.join("strace");
    let mut strace = Command::new(STRACE)
        .args(["-qq", "-c", "-U", "name,calls", "-o"])
        .arg(&summary)
        .args(["-p", &process.0.to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    until(SOON, "strace to look on", || process.is_traced());
    meanwhile();
    until(SOON, "the process to rest", || process.is_idle());
    Process(strace.id() as i32).signal(Signal::SIGINT);
    strace.wait().expect("strace's end");
    let summary = fs::read_to_string(summary).expect("strace's summary");
    let counts = summary.lines().filter_map(|line| {
        let (name, calls) = line.trim().split_once(' ')?;
        Some((name.to_owned(), calls.trim().parse().ok()?))
    });
    counts.filter(|(name, _)| name != "total").collect()
}

#[test]
fn a_client_costs_the_master_five_system_calls() {
    needs_root!("a mail system");
    if !Path::new(STRACE).exists() {
        return skip(&format!("{STRACE} is needed, to count system calls"));
    }
    let pool = Pool::rust(8, "ordered", "-o max_use=0", HANDFUL);
    pool.wait_for_idle(8);
    let master = pool.postfix.master_process();
    let mut seen = Vec::new();
    let cheap = (0..ROUNDS).any(|_| {
        let counts = calls_of(master, &pool.postfix.configuration(), || {
            for _ in 0..CLIENTS {
                assert!(talk(&pool.address).is_some());
            }
        });
        expect_no_others(&counts);
        let all: u64 = counts.values().sum();
        seen.push(counts);
        all <= 5 * CLIENTS
    });
    assert!(cheap, "{seen:?}");
}

/// However busy the machine is: an order for each client, and no calls that are not for clients.
#[track_caller]
fn expect_no_others(counts: &BTreeMap<String, u64>) {
    let known = [
        "epoll_ctl",
        "epoll_wait",
        "getsockopt",
        "recvfrom",
        "sendto",
    ];
    assert!(
        counts.keys().all(|call| known.contains(&&**call)),
        "{counts:?}"
    );
    assert_eq!(counts.get("sendto"), Some(&CLIENTS), "{counts:?}");
    assert!(
        counts.values().all(|calls| *calls <= 4 * CLIENTS),
        "{counts:?}"
    );
}
