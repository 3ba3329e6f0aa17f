//! The fault injection of debug builds, at the same points as in SpamAssassin's module.

use testkit::test;

use crate::load::{clients, serve};
use crate::pool::needs_module;
use crate::pool::{HANDFUL, Pool};

/// Serves every client by a master with this fault.
#[track_caller]
fn with_fault(name: &str, one_in: u32, settings: &str) -> Pool {
    let program = "services/examples/ordered.pl";
    let mut pool = Pool::stopped(8, program, "nobody", settings);
    pool.postfix.environment(name, one_in);
    pool.start();
    let load = serve(&pool.address, clients() / 2, || {});
    assert_eq!((load.served, load.lost), (clients() / 2, 0), "{load:?}");
    pool
}

#[test]
fn every_client_is_served_although_children_fail_at_random() {
    needs_module();
    let pool = with_fault("MASTER_FAULT_CHILDREN", 50, HANDFUL);
    let line = pool.postfix.wait_for_log(": ending rogue process ");
    assert!(
        line.ends_with("it cannot be written to: No buffer space available"),
        "{line}"
    );
}

#[test]
fn every_client_is_served_although_orders_cannot_be_written_at_once() {
    needs_module();
    let pool = with_fault("MASTER_FAULT_WRITES", 3, HANDFUL);
    assert_eq!(pool.postfix.log_lines("rogue"), [""; 0]);
}

#[test]
fn every_client_is_served_although_pings_fail_at_random() {
    needs_module();
    let settings = format!("{HANDFUL}ping_interval = 1\n");
    let pool = with_fault("MASTER_FAULT_PINGS", 4, &settings);
    pool.postfix
        .wait_for_log("it cannot be written to: No buffer space available");
}
