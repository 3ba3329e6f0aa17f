//! What is carried over.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{masterctl, read_document, service, told};
use testkit::poll::until;
use testkit::ports::Port;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;
use testkit::test;

use crate::stage::{VERSION, descriptors, expect_no_more, upgrade};

#[test]
fn a_client_is_served_on_and_processes_and_counters_stay() {
    for mut standalone in Standalone::all() {
        standalone.unwatched("the services are counted");
        let (puppets, command) = Puppets::of(&standalone, "a");
        standalone.write_table(&format!(
            "a unix n - - - 5 {command}\nb unix n - - 60 1 true\n"
        ));
        standalone.start();
        let socket = standalone.queue().join("public/a");
        let socket = socket.to_string_lossy();
        let mut client = Client::connect(&socket);
        let mut busy = puppets.next();
        busy.take_client();
        busy.wait_until_heard();
        until(SOON, "a busy child", || service(&standalone, "a").busy == 1);
        let before = read_document(&standalone);
        let (process, kinds) = (standalone.process().0, descriptors(&mut standalone));
        upgrade(&standalone);
        standalone.wait_for_line("2 services, 1 child, 0 lost, took ");
        let after = read_document(&standalone);
        assert_eq!(after.pid, before.pid);
        assert_eq!(after.pid as i32, process);
        assert_eq!((after.upgrades, before.upgrades), (1, 0));
        assert!((after.started - before.started).abs() < 0.1);
        assert_eq!(after.generation, before.generation);
        let (was, is) = (&before.services, &after.services);
        for (was, is) in was.iter().zip(is) {
            assert_eq!(is.name, was.name);
            assert_eq!(
                (is.total, is.busy, is.peak),
                (was.total, was.busy, was.peak)
            );
            assert_eq!((is.started, is.ended), (was.started, was.ended));
            assert_eq!(is.connections, was.connections);
            assert_eq!(is.listening, was.listening);
        }
        let once = descriptors(&mut standalone);
        expect_no_more(&kinds, &once);
        upgrade(&standalone);
        assert_eq!(descriptors(&mut standalone), once);
        // The client is served to its end by the same child, whose report is heard.
        busy.tell("write still here");
        assert_eq!(client.line(), "still here");
        busy.finish_client();
        until(SOON, "an idle child", || {
            service(&standalone, "a").available == 1
        });
        let _another = Client::connect(&socket);
        busy.take_client();
        until(SOON, "its client", || {
            service(&standalone, "a").connections == 2
        });
        assert_eq!(service(&standalone, "a").started, 1);
    }
}

#[test]
fn a_signal_upgrades_as_the_command_does() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.process().signal(Signal::SIGUSR2);
    standalone.wait_for_line(&format!(
        "upgraded from {VERSION} to {VERSION}: 1 service, 0 children, 0 lost"
    ));
    // Signals are taken as before.
    assert!(standalone.reload().contains("reload done"));
    standalone.stop_by(Signal::SIGTERM);
}

#[test]
fn pauses_throttles_and_the_log_level_stay() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let command = standalone.script("fails", "exit 1").display().to_string();
    standalone.write_table(&format!(
        "a unix n - - - 5 true\nb unix n - - - 5 {command}\n"
    ));
    standalone.start();
    told(&standalone, &["pause", "a"]);
    told(&standalone, &["log-level", "verbose"]);
    let _client = Client::connect(&standalone.queue().join("public/b").to_string_lossy());
    let throttled = || service(&standalone, "b").throttled_until;
    let before = until(SOON, "a throttle", throttled);
    upgrade(&standalone);
    let after = throttled().expect("the throttle goes on");
    assert!((after - before).abs() < 0.1, "{before} {after}");
    assert!(service(&standalone, "a").paused);
    assert!(read_document(&standalone).verbose);
    told(&standalone, &["resume", "a"]);
    assert!(!service(&standalone, "a").paused);
}

#[test]
fn a_child_that_ends_and_one_that_is_told_to_leave_are_noticed_afterwards() {
    let mut standalone = Standalone::of_a_user();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    standalone.start();
    let socket = standalone.queue().join("public/a");
    let _client = Client::connect(&socket.to_string_lossy());
    let mut puppet = puppets.next();
    puppet.take_client();
    puppet.finish_client();
    puppet.wait_until_heard();
    upgrade(&standalone);
    puppet.process.signal(Signal::SIGKILL);
    until(SOON, "its end", || service(&standalone, "a").killed == 1);
    let _client = Client::connect(&socket.to_string_lossy());
    let mut next = puppets.next();
    next.take_client();
    next.finish_client();
    upgrade(&standalone);
    told(&standalone, &["reload", "a"]);
    next.wait_for_end();
}

#[test]
fn all_listeners_of_a_service_stay_and_are_known_where_they_are() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let reserved = Port::reserve();
    let command = standalone.greeter();
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    let other = standalone.path().join("other");
    let address = format!("127.0.0.1:{}", reserved.number());
    let (path, also) = (other.display(), "[service.\"a/unix\"]\nalso_listen");
    standalone.write_toml(&format!("{also} = [\"{address}\", \"unix:{path}\"]\n"));
    standalone.start();
    let own = standalone.queue().join("public/a");
    let inodes = || [&own, &other].map(|path| path.metadata().expect("a socket").ino());
    let greeted = || {
        for path in [&own, &other] {
            assert_eq!(Client::connect(&path.to_string_lossy()).line(), "hello");
        }
        let stream = TcpStream::connect(&address).expect("a listener");
        let mut client = Client::on(stream.into()).expect("a client");
        assert_eq!(client.line(), "hello");
    };
    let before = inodes();
    upgrade(&standalone);
    greeted();
    // A reload finds them all, and opens none anew.
    standalone.reload();
    assert_eq!(inodes(), before);
    greeted();
    // And it opens one anew that was removed since.
    upgrade(&standalone);
    std::fs::remove_file(&other).expect("a socket");
    standalone.reload();
    greeted();
}

#[test]
fn the_flow_pipe_and_the_arguments_of_children_stay() {
    let mut standalone = Standalone::of_a_user();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    standalone.start();
    let pipe = |descriptors: &BTreeMap<i32, testkit::process::Descriptor>| {
        [3, 4].map(|fd| descriptors.get(&fd).map(|d| d.target.clone()))
    };
    let before = pipe(&standalone.process().descriptors());
    let command_line = standalone.process().cmdline();
    upgrade(&standalone);
    assert_eq!(pipe(&standalone.process().descriptors()), before);
    assert_eq!(standalone.process().cmdline(), command_line);
    let socket = standalone.queue().join("public/a");
    let _client = Client::connect(&socket.to_string_lossy());
    let puppet = puppets.next();
    assert_eq!(pipe(&puppet.process.descriptors()), before);
    assert!(puppet.generation > 0);
}

#[test]
fn a_reload_that_was_requested_is_done_by_the_next_program() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    standalone.write_table("a unix n - - - 5 true\n").start();
    standalone.write_table("b unix n - - - 5 true\n");
    standalone.process().signal(Signal::SIGUSR2);
    standalone.process().signal(Signal::SIGHUP);
    standalone.wait_for_line(&format!("upgraded from {VERSION} to {VERSION}: "));
    until(SOON, "the new table", || {
        let services = read_document(&standalone).services;
        services.len() == 1 && services[0].name == "b"
    });
}

#[test]
fn no_client_of_a_service_under_load_is_lost_by_twenty_upgrades() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let reserved = Port::reserve();
    let port = reserved.number();
    let command = standalone.greeter();
    standalone.write_table(&format!("127.0.0.1:{port} inet n - - - 20 {command}\n"));
    standalone.start();
    let kinds = descriptors(&mut standalone);
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let longest = thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !over.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        let stream = TcpStream::connect(("127.0.0.1", port)).expect("a listener");
                        let line = Client::on(stream.into()).expect("a client").line();
                        assert_eq!(line, "hello");
                        longest = longest.max(begin.elapsed());
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                    longest
                })
            })
            .collect();
        for n in 1..=20 {
            let before = served.load(Ordering::Relaxed);
            upgrade(&standalone);
            until(SOON, "clients in between", || {
                served.load(Ordering::Relaxed) > before + 20
            });
            assert_eq!(read_document(&standalone).upgrades, n);
        }
        over.store(true, Ordering::Relaxed);
        let longest = clients
            .into_iter()
            .map(|client| client.join().expect("all is well"));
        longest.max().unwrap_or_default()
    });
    println!("the longest connection took {longest:?}");
    let served = served.into_inner() as u64;
    until(SOON, "all clients to be counted", || {
        read_document(&standalone).services[0].connections == served
    });
    let found = &read_document(&standalone).services[0];
    assert_eq!((found.failed, found.killed), (0, 0));
    let children = found.total as usize;
    let after = descriptors(&mut standalone);
    // Each child has a channel, and may have another for what it prints.
    assert!(
        after["socket"] <= kinds["socket"] + 2 * children,
        "{kinds:?} {after:?}"
    );
}

#[test]
fn two_requests_at_a_time_are_both_answered() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let standalone = &standalone;
    let outcomes = thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| masterctl(standalone, &["upgrade"])));
        both.map(|one| one.join().expect("an end").status.success())
    });
    assert_eq!(outcomes, [true, true]);
}
