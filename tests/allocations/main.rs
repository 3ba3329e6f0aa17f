//! After its start, the master allocates no more memory: not for a report, not for a connection,
//! not for a child. The tests run our master with an allocator that counts.

use std::path::PathBuf;

use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::programs::example;
use testkit::puppet::Puppets;
use testkit::{needs_root, test};

/// A master with the counting allocator, and a service whose children are puppets.
struct Counted {
    postfix: Instance,
    puppets: Puppets,
    file: PathBuf,
}

impl Counted {
    fn start() -> Self {
        let mut postfix = Instance::bare();
        postfix.use_master(&example("counted"));
        let file = postfix.path().join("count");
        std::fs::write(&file, "").expect("a file");
        postfix.environment("MASTER_COUNT_FILE", file.display());
        let puppets = Puppets::new(&postfix, "a");
        let arguments = puppets.arguments();
        postfix.service(&format!("a unix - - n - - puppet {arguments}"));
        postfix.start();
        Self {
            postfix,
            puppets,
            file,
        }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.postfix.socket("private", "a").display().to_string())
    }

    /// The number of allocations, once the master is idle.
    fn requests(&self) -> u64 {
        let master = self.postfix.master_process();
        until(SOON, "the master to rest", || master.is_idle());
        let text = std::fs::read_to_string(&self.file).expect("a count");
        text.parse().expect("a number")
    }
}

#[test]
fn reports_need_no_memory() {
    needs_root("the master changes users");
    let counted = Counted::start();
    let client = counted.connect();
    let mut puppet = counted.puppets.next();
    puppet.take_client();
    drop(client);
    puppet.finish_client();
    puppet.wait_until_heard();
    let before = counted.requests();
    for _ in 0..100 {
        // From no available child to one and back: the listener is watched and unwatched.
        for report in ["report taken", "report available"] {
            puppet.tell(report);
            puppet.wait_until_heard();
        }
    }
    assert_eq!(counted.requests(), before);
}

#[test]
fn a_child_for_each_connection_needs_no_memory() {
    needs_root("the master changes users");
    let counted = Counted::start();
    let serve = || {
        let _client = counted.connect();
        let mut puppet = counted.puppets.next();
        puppet.take_client();
        puppet.wait_until_heard();
        puppet.exit(0);
    };
    (0..10).for_each(|_| serve());
    let before = counted.requests();
    (0..50).for_each(|_| serve());
    assert_eq!(counted.requests(), before);
}

fn main() -> std::process::ExitCode {
    testkit::main()
}
