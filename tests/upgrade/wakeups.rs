//! Wake-ups that are under way go on.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testkit::instance::SOON;
use testkit::operator::told;
use testkit::poll::until;
use testkit::ports::Port;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;
use testkit::{client::Client, test};

use crate::stage::upgrade;

/// `W` and a null byte, as puppets print them.
const WAKEUP: &str = "5700";

#[test]
fn a_wakeup_that_a_service_has_not_answered_stays_open() {
    for kind in ["unix", "inet", "pass"] {
        let mut standalone = Standalone::of_a_user();
        standalone.unwatched("descriptors are counted");
        let (puppets, command) = Puppets::of(&standalone, "a");
        let reserved = Port::reserve();
        let name = match kind {
            "inet" => format!("127.0.0.1:{}", reserved.number()),
            _ => "a".to_owned(),
        };
        standalone.write_table(&format!("{name} {kind} n n - 1000 1 {command}\n"));
        standalone.start();
        let mut puppet = puppets.next();
        puppet.take_client();
        let receive = if kind == "pass" {
            puppet.tell("adopt");
            "receive-passed"
        } else {
            "receive"
        };
        assert_eq!(puppet.tell(receive), WAKEUP);
        upgrade(&standalone);
        upgrade(&standalone);
        assert_eq!(puppet.tell("is-open"), "true", "{kind}");
        let open = standalone.process().descriptors().len();
        puppet.finish_client();
        until(SOON, "the end of the wake-up", || {
            standalone.process().descriptors().len() == open - 1
        });
        assert!(
            !standalone.said().contains("woken up"),
            "{}",
            standalone.said()
        );
        // The service has one child, which takes clients.
        if kind == "unix" {
            let mut client =
                Client::connect(&standalone.queue().join("public/a").to_string_lossy());
            puppet.take_client();
            puppet.tell("write served");
            assert_eq!(client.line(), "served");
        }
    }
}

#[test]
fn a_wakeup_that_waits_for_its_connection_is_made_afterwards() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("another service would have clients");
    let (puppets, command) = Puppets::of(&standalone, "a");
    let reserved = Port::reserve();
    let address = SocketAddr::from(([127, 0, 0, 1], reserved.number()));
    // The first use of the service wakes it up.
    standalone.write_table(&format!("{address} inet n n - 1000? 1 {command}\n"));
    standalone.start();
    told(&standalone, &["log-level", "verbose"]);
    let name = format!("{address}/inet");
    told(&standalone, &["pause", &name]);
    // The queue is full when one finds no room in it.
    let room = Duration::from_millis(300);
    let clients: Vec<_> = std::iter::repeat_with(|| TcpStream::connect_timeout(&address, room))
        .map_while(Result::ok)
        .collect();
    assert!(clients.len() > 1);
    told(&standalone, &["resume", &name]);
    standalone.wait_for_line("waking up");
    let mut puppet = puppets.next();
    upgrade(&standalone);
    drop(clients);
    // The kernel tries to connect after 1, 3 and 7 seconds.
    until(SOON, "the wake-up", || {
        puppet.take_client();
        let received = puppet.tell("receive");
        puppet.finish_client();
        received == WAKEUP
    });
    assert!(
        !standalone.said().contains("woken up"),
        "{}",
        standalone.said()
    );
}
