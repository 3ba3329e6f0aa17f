//! Mail gets through.

use std::time::Duration;

use crate::common::instance::Instance;
use crate::common::run::run;
use crate::needs_root;

#[test]
fn a_thousand_messages_over_twenty_connections_all_arrive() {
    needs_root!("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.start();
    let limit = Duration::from_secs(60);
    run(&mut postfix.smtp_source(1000, 20), limit).expect_success();
    postfix.wait_for_delivery(1000, limit);
}
