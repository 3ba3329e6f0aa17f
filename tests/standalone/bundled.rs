//! The services that lie beside the master: no path, no Postfix, no `main.cf`.

use std::process::Command;

use super::common::client::Client;
use super::common::instance::SOON;
use super::common::poll::until;
use super::common::puppet::service;
use super::common::run::run;
use super::world::World;

/// Puts programs beside the master's, and starts it.
fn start(world: &mut World, programs: &[&str], table: &str) {
    for program in programs {
        let mut copy = Command::new("cp");
        run(copy.arg(service(program)).arg(world.path()), SOON).expect_success();
    }
    world.write_table(table).start();
}

/// A client of the public socket of this name.
#[track_caller]
fn client(world: &World, name: &str) -> Client {
    let socket = world.queue().join("public").join(name);
    Client::connect(&socket.display().to_string())
}

#[test]
fn a_table_of_one_line_serves() {
    for mut world in [World::new(), World::of_a_user()] {
        start(&mut world, &["echo"], "hello unix n - - - 5 echo\n");
        let mut client = client(&world, "hello");
        client.say("hello");
        assert_eq!(client.line(), "hello");
    }
}

#[test]
fn anybody_may_spawn_commands_of_their_own() {
    let mut world = World::of_a_user();
    start(
        &mut world,
        &["spawn"],
        "id unix n - - - 5 spawn argv=id -u\n",
    );
    assert_eq!(client(&world, "id").line(), world.uid().to_string());
}

#[test]
fn a_service_logs_to_the_masters_file_and_terminal() {
    for mut world in [World::new(), World::of_a_user()] {
        let log = world.path().join("log");
        let of = |name: &str| world.path().join(name).display().to_string();
        world.write_toml(&format!(
            "maillog_file = \"{}\"\nmaillog_file_prefixes = \"/\"\n\
             queue_directory = \"{}\"\ndata_directory = \"{}\"\n",
            log.display(),
            world.queue().display(),
            of("data"),
        ));
        start(&mut world, &["whois"], "whois unix n - - - 5 whois\n");
        client(&world, "whois").wait_for_end();
        until(SOON, "a line in the log", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.lines()
                .any(|line| line.contains(" master/whois[") && line.contains("asked by local"))
        });
        world.wait_for_line("whois: asked by local client");
    }
}
