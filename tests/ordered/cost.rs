//! The cost of a client for the master, in wake-ups and system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use testkit::client::talk;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::service;
use testkit::{needs_root, skip, test};

use crate::pool::{HANDFUL, Pool, STRACE};

/// The number of clients, one after the other, for which calls are counted.
const CLIENTS: u64 = 200;
/// The master may become idle while it serves a client, which costs additional calls. At least one
/// of this many rounds is undisturbed.
const ROUNDS: usize = 10;

/// The number of system calls of a process while `meanwhile` runs, by name.
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

/// The system calls for one client: two waits of five calls each in the poller's library; the
/// listener is watched and unwatched; the waiting clients of what still listens are counted; an order
/// and its answer.
const CALLS: [(&str, u64); 8] = [
    ("epoll_wait", 2),
    ("epoll_pwait", 2),
    ("timerfd_settime", 2),
    ("read", 2),
    ("epoll_ctl", 2 * 2 + 2),
    ("getsockopt", 2),
    ("sendto", 1),
    ("recvfrom", 1),
];

fn idle_pool() -> Pool {
    let program = service("ordered");
    let program = program.to_str().expect("a path that is text");
    let mut pool = Pool::stopped(8, program, "-o max_use=0", HANDFUL);
    pool.postfix
        .unwatched("wake-ups and system calls are counted");
    pool.start();
    pool.wait_for_idle(8);
    let client = Process(nix::unistd::gettid().as_raw());
    let master = pool.postfix.master_process();
    for process in pool.children().into_iter().chain([master, client]) {
        process.prefer();
    }
    pool
}

/// Serves one client after the other.
#[track_caller]
fn visit(pool: &Pool) {
    for _ in 0..CLIENTS {
        assert!(talk(&pool.address).is_some());
    }
}

/// For the client, and for each of the child's two reports, where they do not come together.
#[test(alone)]
fn a_client_wakes_the_master_up_three_times_at_the_most() {
    needs_root("a mail system");
    let pool = idle_pool();
    let master = pool.postfix.master_process();
    let rounds = (0..ROUNDS).map(|_| {
        let before = master.voluntary_switches();
        visit(&pool);
        master.voluntary_switches() - before
    });
    let rounds: Vec<u64> = rounds.collect();
    let fewest = rounds.iter().min();
    assert!(
        fewest.is_some_and(|wakes| *wakes <= CLIENTS * 3),
        "{rounds:?}"
    );
}

#[test(alone)]
fn a_client_costs_the_master_two_waits_and_no_other_call_twice() {
    needs_root("a mail system");
    if !Path::new(STRACE).exists() {
        skip(&format!("{STRACE} is needed, to count system calls"));
    }
    let pool = idle_pool();
    let master = pool.postfix.master_process();
    let mut seen = Vec::new();
    let cheap = (0..ROUNDS).any(|_| {
        let counts = calls_of(master, &pool.postfix.configuration(), || {
            visit(&pool);
        });
        expect_no_others(&counts);
        let as_expected = counts.iter().all(|(call, calls)| {
            let (_, each) = CALLS.iter().find(|(known, _)| known == call).expect(call);
            *calls <= each * CLIENTS * 5 / 4
        });
        seen.push(counts);
        as_expected
    });
    assert!(cheap, "{seen:?}");
}

/// On any machine, each client has one order, and there are no calls without a client.
#[track_caller]
fn expect_no_others(counts: &BTreeMap<String, u64>) {
    let all_known = counts
        .keys()
        .all(|call| CALLS.iter().any(|(known, _)| known == call));
    assert!(all_known, "{counts:?}");
    assert!(counts.get("sendto") >= Some(&CLIENTS), "{counts:?}");
    let bounded = counts.values().all(|calls| *calls <= 20 * CLIENTS);
    assert!(bounded, "{counts:?}");
}
