//! The number of waiting clients, for each type of listener.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{read_document, service, told};
use testkit::poll::until;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;
use testkit::test;

/// "backlog"
#[test]
fn clients_of_a_paused_service_are_counted_whatever_its_type() {
    for mut standalone in Standalone::all() {
        standalone.unwatched("the services are counted");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = port.local_addr().expect("its address");
        drop(port);
        standalone.write_table(&format!(
            "{address} inet n - - - 5 true\na unix n - - - 5 true\nb pass n - - - 5 true\n\
             c fifo n - - - 5 true\n"
        ));
        standalone.start();
        let names = [&*address.to_string(), "a", "b", "c"];
        for name in names {
            told(&standalone, &["pause", name]);
        }
        let _tcp = [(); 2].map(|()| TcpStream::connect(address).expect("a listener"));
        let come = |name: &str| UnixStream::connect(standalone.queue().join("public").join(name));
        let _unix = ["a", "a", "a", "b"].map(|name| come(name).expect("a listener"));
        // TCP connections may reach the queue with a delay.
        until(SOON, "all of them in their queues", || {
            let services = read_document(&standalone).services;
            let waiting: Vec<_> = services.iter().map(|service| service.backlog).collect();
            waiting == [Some(2), Some(3), Some(1), None]
        });
        assert!(told(&standalone, &["status", "a"]).contains(", 3 waiting\n"));
    }
}

#[test]
fn a_service_whose_child_never_accepts_is_stalled_until_it_does() {
    let mut standalone = Standalone::of_a_user();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone
        .write_table(&format!("a unix n - - - 5 {command}\n"))
        .start();
    let path = standalone.queue().join("public/a").display().to_string();
    let _client = Client::connect(&path);
    let mut puppet = puppets.next();
    assert!(!service(&standalone, "a").stalled);
    until(SOON, "the state", || service(&standalone, "a").stalled);
    assert!(told(&standalone, &["status"]).contains("stalled"));
    puppet.take_client();
    let is_over = || !service(&standalone, "a").stalled;
    until(SOON, "its end", is_over);
    puppet.finish_client();
    until(SOON, "the child to be idle", || {
        service(&standalone, "a").available == 1
    });
    assert!(is_over());
}

#[test]
fn who_waits_for_the_only_child_has_the_service_full() {
    let mut standalone = Standalone::of_a_user();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone
        .write_table(&format!("a unix n - - - 1 {command}\n"))
        .start();
    let path = standalone.queue().join("public/a").display().to_string();
    let _first = Client::connect(&path);
    let mut puppet = puppets.next();
    puppet.take_client();
    puppet.wait_until_heard();
    until(SOON, "the child to be busy", || {
        service(&standalone, "a").busy == 1
    });
    assert!(!service(&standalone, "a").is_full());
    let _others = [(); 4].map(|()| Client::connect(&path));
    until(SOON, "the others to be seen", || {
        let service = service(&standalone, "a");
        service.backlog == Some(4) && service.is_full()
    });
}
