//! Clients come faster than the master can start children for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::stage::Stage;
use testkit::client::Client;
use testkit::operator::{read_document, told};
use testkit::{needs_root, test};

/// Services, each with a client at any time: more than the master starts children for in a turn.
const SERVICES: usize = 60;
/// How long an operator waits at the most.
const ANSWERED: Duration = Duration::from_secs(3);

/// The end of the flood, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Without the fix: "waited 3s in vain for the end of a reload".
#[test(alone)]
fn a_reload_and_an_operator_are_answered_while_clients_keep_the_master_busy() {
    needs_root("a master that keeps to itself");
    let mut stage = Stage::new();
    let hello = stage.hello();
    for number in 0..SERVICES {
        stage.service(&format!("flood{number} unix n"), "0", &hello);
    }
    stage.start();
    let over = AtomicBool::new(false);
    let clients_of = |address: String| {
        while !over.load(Ordering::Relaxed) {
            // A client that finds the queue full, or no listener for a moment, comes again.
            if let Ok(mut client) = Client::try_connect(&address) {
                client.line_within(Duration::from_secs(1));
            }
        }
    };
    thread::scope(|scope| {
        let _end = End(&over);
        for number in 0..SERVICES {
            let address = stage.address(&format!("flood{number}"));
            scope.spawn(|| clients_of(address));
        }
        let answers = (0..3).map(|_| {
            let said = stage.reload_within(ANSWERED);
            told(&stage.standalone, &["pause", "flood0"]);
            told(&stage.standalone, &["resume", "flood0"]);
            said
        });
        let answers: Vec<_> = answers.collect();
        assert!(
            answers.iter().all(|said| said.contains("reload done")),
            "{answers:?}"
        );
    });
    assert!(read_document(&stage.standalone).services.len() > SERVICES);
}
