//! What a service manager such as systemd is told.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::common::instance::SOON;
use super::world::World;

const TABLE: &str = "a unix - - - - - true\nb unix - - - - - true\n";

/// The place of a service manager, who hears what a master says.
struct Manager(UnixDatagram);

impl Manager {
    /// Starts the master of a world, with more in its environment.
    #[track_caller]
    fn of(world: &mut World, variables: &[(&str, &str)]) -> Self {
        let path = world.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        std::fs::set_permissions(&path, open).expect("a mode");
        socket.set_read_timeout(Some(SOON)).expect("a time limit");
        world.write_table(TABLE);
        let mut master = world.master(&["-d"]);
        master.env("NOTIFY_SOCKET", &path);
        master.envs(variables.iter().copied());
        world.start_as(master.process_group(0));
        Self(socket)
    }

    /// The next message.
    #[track_caller]
    fn hears(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.0.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_end() {
    let mut world = World::of_a_user();
    let manager = Manager::of(&mut world, &[]);
    let pid = world.process().0;
    let ready = format!("READY=1\nMAINPID={pid}\nSTATUS=");
    assert_eq!(manager.hears(), format!("{ready}2 services\n"));

    world.write_table("a unix - - - - - true\n").reload();
    assert!(manager.hears().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(manager.hears(), format!("{ready}1 service\n"));

    world.write_table("nonsense").reload();
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    let failed = "1 service, but the last reload failed: see the log";
    assert_eq!(manager.hears(), format!("{ready}{failed}\n"));

    world.stop_by(Signal::SIGTERM);
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=stopping\n");
}

#[test]
fn a_service_manager_that_watches_hears_twice_in_its_interval() {
    let mut world = World::of_a_user();
    let manager = Manager::of(&mut world, &[("WATCHDOG_USEC", "1000000")]);
    let mut alive = 0;
    while alive < 3 {
        match manager.hears().as_str() {
            "WATCHDOG=1\n" => alive += 1,
            other => assert!(other.starts_with("READY=1\n"), "{other}"),
        }
    }
    // No more often than twice a second, either: the first comes before READY.
    let start = std::time::Instant::now();
    for _ in 0..2 {
        assert_eq!(manager.hears(), "WATCHDOG=1\n");
    }
    assert!(
        start.elapsed() > Duration::from_millis(600),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_service_manager_that_is_not_there_is_a_warning() {
    let mut world = World::of_a_user();
    world.write_table(TABLE);
    let mut master = world.master(&["-d"]);
    master.env("NOTIFY_SOCKET", "/nowhere/notify");
    world.start_as(master.process_group(0));
    world.wait_for_line("NOTIFY_SOCKET: cannot reach the service manager: No such file");
}
