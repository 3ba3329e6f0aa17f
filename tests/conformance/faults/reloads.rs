//! Reloads under load.

use testkit::instance::{Instance, SOON};
use testkit::poll::{until, within};
use testkit::{needs_root, test};

use super::crowd::{self, Crowd};

/// "A service that stays [...] keeps its listeners and the clients that wait there. Its children
/// are told to leave; each does so when it has finished with its client."
#[test]
fn a_thousand_reloads_lose_no_client() {
    needs_root("to run a master");
    let (clients, reloads) = match std::env::var_os("MASTER_TEST_LONG") {
        Some(_) => (100_000, 1_000),
        None => (10_000, 100),
    };
    let mut postfix = Instance::bare();
    let address = postfix.address();
    let path = postfix.socket("private", "a").display().to_string();
    crowd::add_service(&mut postfix, &address, "inet n - n - -");
    crowd::add_service(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    // One reload and some clients first, because some memory is allocated on first use.
    let addresses = [&*address, &path, &address, &path];
    Crowd::new(&addresses, 100).visit(|| postfix.hang_up());
    let vitals = crowd::vitals_without_children(&mut postfix);
    let done = || postfix.log_lines("reload -- version").len();

    let crowd = Crowd::new(&addresses, clients);
    let tally = crowd.visit(|| {
        for reload in 0..reloads {
            let due = || crowd.come() / (clients / reloads) > reload || crowd.is_over();
            until(SOON, "more clients", due);
            let before = done();
            postfix.hang_up();
            // The original merges a signal that arrives between this line and the reload.
            while within(SOON / 20, || done() > before).is_none() {
                postfix.hang_up();
            }
        }
    });
    assert_eq!((tally.served, tally.let_down()), (clients, 0), "{tally:?}");
    postfix.reload();
    assert_eq!(postfix.log_lines("warning: "), [""; 0]);
    vitals.expect_again(&postfix);
}
