//! No process can be started.

use std::time::{Duration, Instant};

use testkit::cgroup::Group;
use testkit::instance::Instance;
use testkit::puppet_service::PuppetService;
use testkit::vitals::{Vitals, expect_rest};
use testkit::{needs_root, skip, test};

use crate::lines::Line;

/// "So it is when the system cannot start a process": waiting clients are served once it can again.
#[test]
fn a_master_that_can_make_no_process_waits_and_serves_when_it_can() {
    needs_root("to run a master");
    let Some(group) = Group::make() else {
        skip("there is no control group to limit processes with");
    };
    let mut postfix = Instance::bare();
    postfix.unwatched("no child is started");
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.set("service_throttle_time", "1s");
    postfix.start();
    let master = postfix.master_process();
    group.take_in(master);
    // Of the first child of a service, the master has its descriptor 2, too.
    let (client, first) = service.serve();
    drop(client);
    first.exit(0);
    let (mut client, mut busy) = service.serve();
    let vitals = Vitals::of(&postfix);

    group.close();
    let begin = Instant::now();
    let mut waiting = service.connect();
    let details = [
        "warning: ",
        "Resource temporarily unavailable -- throttling",
    ];
    Line::SpawnFailed.wait(&postfix, &details);
    expect_rest(master, Duration::from_millis(2500));
    let (attempts, passed) = (Line::SpawnFailed.count(&postfix), begin.elapsed());
    // One attempt per second; the clock may count whole seconds.
    let most = 2 * passed.as_secs() as usize + 2;
    assert!(attempts <= most, "{attempts} attempts in {passed:?}");
    busy.tell("write hello");
    assert_eq!(client.line(), "hello");
    postfix.reload_while_busy();

    group.open();
    let mut late = service.next();
    late.take_client();
    late.tell("write hello");
    assert_eq!(waiting.line(), "hello");
    busy.wait_for_end();
    vitals.expect_again(&postfix);
}
