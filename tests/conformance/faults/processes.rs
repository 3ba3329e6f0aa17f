//! No process can be made.

use std::time::{Duration, Instant};

use crate::common::cgroup::Group;
use crate::common::instance::Instance;
use crate::common::skip;
use crate::common::vitals::{Vitals, expect_rest};
use crate::lines::Line;
use crate::needs_root;
use crate::stage::Troupe;

/// "So it is when the system cannot start a process": who waits is served when it can again.
#[test]
fn a_master_that_can_make_no_process_waits_and_serves_when_it_can() {
    needs_root!("to run a master");
    let Some(group) = Group::make() else {
        return skip("there is no control group to limit processes with");
    };
    let mut postfix = Instance::bare();
    let troupe = Troupe::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    let master = postfix.master_process();
    group.take_in(master);
    let (mut client, mut busy) = troupe.serve();
    let vitals = Vitals::of(&postfix);

    group.close();
    let begin = Instant::now();
    let mut waiting = troupe.connect();
    let details = [
        "warning: ",
        "Resource temporarily unavailable -- throttling",
    ];
    Line::SpawnFailed.wait(&postfix, &details);
    expect_rest(master, Duration::from_millis(2500));
    let (attempts, passed) = (Line::SpawnFailed.count(&postfix), begin.elapsed());
    // One in a second, by a clock that may count whole seconds.
    let most = 2 * passed.as_secs() as usize + 2;
    assert!(attempts <= most, "{attempts} attempts in {passed:?}");
    busy.tell("write hello");
    assert_eq!(client.line(), "hello");
    postfix.reload_while_busy();

    group.open();
    let mut late = troupe.next();
    late.take_client();
    late.tell("write hello");
    assert_eq!(waiting.line(), "hello");
    busy.wait_for_end();
    vitals.expect_again(&postfix);
}
