//! Many clients in one process: proxy, which connects each client to another service.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::programs::service;
use testkit::{needs_root, ours_promises, test};

use crate::limits::wait_until_gone;
use crate::stage::Stage;

/// A proxy to the echo service, with these options.
pub fn proxy(limit: &str, options: &str) -> Stage {
    let mut stage = Stage::new("proxy", limit, "to=127.0.0.1:1");
    stage.install(&service("echo"), "echo");
    stage.service("echo unix n - n - - echo");
    let target = stage.socket("public", "echo");
    stage.serve("y", limit, &format!("{options} to={}", target.display()));
    stage.reload();
    stage
}

/// Connects a client that has been served and stays.
#[track_caller]
fn guest(stage: &Stage) -> Client {
    let mut client = Client::connect(&stage.address());
    hello(&mut client);
    client
}

#[track_caller]
fn hello(client: &mut Client) {
    client.say("hello");
    assert_eq!(client.line(), "hello");
}

#[test]
fn one_process_serves_many_clients() {
    needs_root("a mail system");
    let stage = proxy("-", "");
    let mut clients: Vec<Client> = (0..20).map(|_| guest(&stage)).collect();
    assert_eq!(stage.processes().len(), 1);
    clients.iter_mut().for_each(hello);
}

#[test]
fn the_end_of_what_a_client_says_passes_the_proxy_and_the_answer_comes_back() {
    needs_root("a mail system");
    let stage = proxy("-", "");
    let text = "0123456789".repeat(50_000);
    assert_eq!(stage.ask(&text), text);
}

#[test]
fn a_proxy_connects_over_inet_too() {
    needs_root("a mail system");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let target = listener.local_addr().expect("an address");
    let stage = Stage::new("proxy", "-", &format!("to={target}"));
    let mut client = Client::connect(&stage.address());
    client.say("hello");
    let (server, _) = listener.accept().expect("the proxy");
    let mut line = String::new();
    let mut server = std::io::BufReader::new(server);
    std::io::BufRead::read_line(&mut server, &mut line).expect("a line");
    assert_eq!(line, "hello\r\n");
}

#[test]
fn a_process_with_max_clients_leaves_the_next_one_to_another() {
    needs_root("a mail system");
    let stage = proxy("-", "-o max_clients=2");
    let mut clients: Vec<Client> = (0..3).map(|_| guest(&stage)).collect();
    assert_eq!(stage.processes().len(), 2);
    // A slot is free again, so no third process is needed.
    clients.swap_remove(0);
    clients.push(guest(&stage));
    assert_eq!(stage.processes().len(), 2);
    clients.iter_mut().for_each(hello);
}

#[test]
fn a_process_that_may_not_have_company_serves_on_when_a_seat_is_free() {
    needs_root("a mail system");
    let stage = proxy("1", "-o max_clients=1");
    let mut first = guest(&stage);
    let mut second = Client::connect(&stage.address());
    second.say("hello");
    hello(&mut first);
    drop(first);
    assert_eq!(second.line(), "hello");
    assert_eq!(stage.processes().len(), 1);
}

#[test]
fn a_reload_lets_all_clients_be_served_to_the_end() {
    needs_root("a mail system");
    let mut stage = proxy("-", "");
    let mut clients: Vec<Client> = (0..3).map(|_| guest(&stage)).collect();
    let old = stage.processes()[0];
    stage.reload();
    if ours_promises("new clients are served while an old process has some") {
        let mut new = guest(&stage);
        assert_eq!(stage.processes().len(), 2);
        hello(&mut new);
    }
    clients.iter_mut().for_each(hello);
    assert!(old.runs());
    drop(clients);
    until(SOON, "the old process to leave", || !old.runs());
    hello(&mut guest(&stage));
}

#[test]
fn a_process_leaves_after_max_use_clients_when_the_last_one_is_done() {
    needs_root("a mail system");
    let stage = proxy("2", "-o max_use=2");
    let (mut one, mut two) = (guest(&stage), guest(&stage));
    let first = stage.processes()[0];
    // It has reached its limit and has reported that, so that no client waits for it.
    let mut three = guest(&stage);
    assert_eq!(stage.processes().len(), 2);
    for client in [&mut one, &mut two, &mut three] {
        hello(client);
    }
    drop((one, two));
    until(SOON, "the first process to leave", || !first.runs());
}

#[test]
fn a_process_that_has_served_is_not_taken_for_a_broken_one_when_it_dies() {
    needs_root("a mail system");
    let stage = proxy("-", "");
    let client = guest(&stage);
    let process = stage.processes()[0];
    let descriptors = process.descriptors().len();
    drop(client);
    until(SOON, "the process to have done with its client", || {
        process.descriptors().len() < descriptors && process.rests()
    });
    process.signal(Signal::SIGKILL);
    stage.wait_for_log("killed by signal 9");
    hello(&mut guest(&stage));
    assert_eq!(stage.log_lines("throttling"), [""; 0]);
}

#[test]
fn a_process_with_clients_is_not_idle() {
    needs_root("a mail system");
    let stage = proxy("-", "-o max_idle=1s");
    let mut client = guest(&stage);
    drop(guest(&stage));
    let process = stage.processes()[0];
    let period = std::time::Duration::from_millis(2500);
    testkit::poll::stays(period, "the process runs", || process.runs());
    hello(&mut client);
    drop(guest(&stage));
    assert_eq!(stage.processes(), [process], "it has let the next one in");
    drop(client);
    wait_until_gone(&stage);
}

#[test]
fn a_silence_that_is_too_long_ends_the_connection() {
    needs_root("a mail system");
    let stage = proxy("-", "-o proxy_timeout=1s");
    let mut client = guest(&stage);
    client.wait_for_end();
    stage.wait_for_log("lost connection with 127.0.0.1:");
}

#[test]
fn a_target_that_is_not_there_is_logged() {
    needs_root("a mail system");
    let stage = Stage::new("proxy", "-", "to=/no/such/socket");
    assert_eq!(stage.ask(""), "");
    let line = stage.wait_for_log("cannot connect to /no/such/socket");
    assert!(line.contains("warning: 127.0.0.1:"), "{line}");
    assert!(line.ends_with("No such file or directory"), "{line}");
}
