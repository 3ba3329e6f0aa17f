//! A pool on a socket in the file system, for which the system does not count waiting clients.

use nix::sys::signal::Signal;
use testkit::client::talk;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::{needs_root, test};

use crate::load::serve_all;
use crate::pool::{HANDFUL, Pool};

#[test]
fn clients_of_a_socket_in_the_file_system_are_all_served() {
    needs_root("a mail system");
    let pool = Pool::local(8, HANDFUL);
    pool.wait_for_idle(8);
    let load = serve_all(&pool.address, || {});
    assert!(load.children.len() > 1, "one served all: {load:?}");
}

#[test]
fn a_stuck_child_delays_no_client_of_a_socket_in_the_file_system() {
    needs_root("a mail system");
    let pool = Pool::local(3, "accept = \"ordered\"\nmax_idle = 3\n");
    pool.wait_for_idle(3);
    let lowest = pool
        .children()
        .into_iter()
        .min_by_key(|child| child.0)
        .expect("three children");
    lowest.signal(Signal::SIGSTOP);
    for _ in 0..20 {
        assert!(talk(&pool.address).is_some_and(|child| child != lowest.0));
    }
    lowest.signal(Signal::SIGCONT);
    until(SOON, "the lowest pid to serve again", || {
        talk(&pool.address) == Some(lowest.0)
    });
}
