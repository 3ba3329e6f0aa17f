//! Notifications to a service manager such as systemd, and sockets from it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::instance::SOON;
use testkit::network::in_own_network;
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::vitals::expect_rest;
use testkit::{needs_root, skip, test};

const TABLE: &str = "a unix - - - - - true\nb unix - - - - - true\n";

/// A fake service manager that receives the master's notifications.
struct Manager(UnixDatagram);

impl Manager {
    /// Starts the master with these variables in its environment.
    #[track_caller]
    fn of(standalone: &mut Standalone, variables: &[(&str, &str)]) -> Self {
        let path = standalone.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(&path, open).expect("a mode");
        socket.set_read_timeout(Some(SOON)).expect("a time limit");
        standalone.write_table(TABLE);
        let mut master = standalone.master(&["-d"]);
        master.env("NOTIFY_SOCKET", &path);
        master.envs(variables.iter().copied());
        standalone.start_as(master.process_group(0));
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
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let manager = Manager::of(&mut standalone, &[]);
    let pid = standalone.process().0;
    let ready = format!("READY=1\nMAINPID={pid}\nSTATUS=");
    assert_eq!(manager.hears(), format!("{ready}2 services\n"));

    standalone.write_table("a unix - - - - - true\n").reload();
    assert!(manager.hears().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(manager.hears(), format!("{ready}1 service\n"));

    standalone.write_table("nonsense").reload();
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    let failed = "1 service, but the last reload failed: see the log";
    assert_eq!(manager.hears(), format!("{ready}{failed}\n"));

    standalone.stop_by(Signal::SIGTERM);
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=stopping\n");
}

#[test]
fn an_upgrade_is_no_end_to_a_service_manager() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let manager = Manager::of(&mut standalone, &[("WATCHDOG_USEC", "1000000")]);
    let pid = standalone.process().0;
    let ready = format!("READY=1\nMAINPID={pid}\nSTATUS=2 services\n");
    let next = || loop {
        let heard = manager.hears();
        if heard != "WATCHDOG=1\n" {
            break heard;
        }
    };
    assert_eq!(next(), ready);
    for _ in 0..3 {
        standalone.process().signal(Signal::SIGUSR2);
        assert_eq!(next(), ready);
    }
    // The watchdog goes on.
    while manager.hears() != "WATCHDOG=1\n" {}
    standalone.stop_by(Signal::SIGTERM);
    assert_eq!(next(), "STOPPING=1\nSTATUS=stopping\n");
}

#[test]
fn a_service_manager_that_watches_hears_twice_in_its_interval() {
    let mut standalone = Standalone::of_a_user();
    let manager = Manager::of(&mut standalone, &[("WATCHDOG_USEC", "1000000")]);
    let mut alive = 0;
    while alive < 3 {
        match manager.hears().as_str() {
            "WATCHDOG=1\n" => alive += 1,
            other => assert!(other.starts_with("READY=1\n"), "{other}"),
        }
    }
    // Not more often than twice a second; the first comes before READY.
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
    let mut standalone = Standalone::of_a_user();
    standalone.write_table(TABLE);
    let mut master = standalone.master(&["-d"]);
    master.env("NOTIFY_SOCKET", "/nowhere/notify");
    standalone.start_as(master.process_group(0));
    standalone.wait_for_line("NOTIFY_SOCKET: cannot reach the service manager: No such file");
}

/// systemd's own program to pass listeners without systemd.
const ACTIVATE: &str = "/usr/bin/systemd-socket-activate";

/// Starts the master when the first client connects to one of `listeners`, with options for
/// systemd-socket-activate(1).
#[track_caller]
fn activated(standalone: &mut Standalone, options: &[&str]) {
    let master = standalone.master(&["-d"]);
    let mut command = Command::new(ACTIVATE);
    command.args(options);
    for (name, directory) in [("XDG_RUNTIME_DIR", "run"), ("HOME", "home")] {
        let value = standalone.path().join(directory);
        command.args(["-E", &format!("{name}={}", value.display())]);
    }
    if nix::unistd::geteuid().is_root() && standalone.uid() != 0 {
        let uid = standalone.uid();
        command.args(["setpriv", "--clear-groups"]);
        command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    }
    command.arg(master.get_program()).args(master.get_args());
    standalone.run(command.env("PATH", "/usr/bin:/bin").process_group(0));
}

/// A program for a service that creates a file when it runs.
fn mark(standalone: &Standalone) -> (String, impl Fn() -> bool + use<>) {
    let mark = standalone.path().join("mark");
    let script = standalone.script(
        "script",
        &format!("touch {}; exec sleep 1000", mark.display()),
    );
    (script.display().to_string(), move || mark.exists())
}

#[test]
fn a_listener_that_is_handed_over_is_served() {
    if !Path::new(ACTIVATE).exists() {
        skip("systemd-socket-activate is not installed");
    }
    let mut standalone = Standalone::of_a_user();
    let (program, ran) = mark(&standalone);
    standalone.write_table(&format!("a unix n - - - 1 {program}\n"));
    let socket = standalone.queue().join("public/a");
    for directory in ["", "public", "private", "pid"] {
        let path = standalone.queue().join(directory);
        fs::create_dir_all(&path).unwrap();
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(standalone.uid()), None).unwrap();
        }
    }
    let stray = standalone.path().join("stray");
    let [listener, other] = [&socket, &stray].map(|path| path.display().to_string());
    activated(&mut standalone, &["-l", &listener, "-l", &other]);
    let _client = until(SOON, "the listener", || UnixStream::connect(&socket).ok());
    standalone.wait_for_line("daemon started");
    until(SOON, "a child for the first client", ran);
    standalone.wait_for_line(&format!(
        "no service listens on {}, which the service manager handed over",
        stray.display()
    ));
}

#[test]
fn a_user_serves_a_port_of_roots_that_is_handed_over() {
    needs_root("to open the port");
    if !Path::new(ACTIVATE).exists() {
        skip("systemd-socket-activate is not installed");
    }
    in_own_network(|| {
        let mut standalone = Standalone::of_a_user();
        let (program, ran) = mark(&standalone);
        standalone.write_table(&format!("127.0.0.1:79 inet n - - - 1 {program}\n"));
        activated(&mut standalone, &["-l", "127.0.0.1:79"]);
        let _client = until(SOON, "the port", || TcpStream::connect("127.0.0.1:79").ok());
        until(SOON, "a child for the first client", ran);
        // It belongs to the service manager, and listens even without the service.
        standalone.write_table("a unix n - - - 1 true\n").reload();
        assert!(TcpStream::connect("127.0.0.1:79").is_ok());
    });
}

#[test]
fn the_unit_for_systemd_is_valid_and_hardened() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        skip("systemd-analyze is not installed");
    }
    let standalone = Standalone::new();
    let unit = include_str!("../../contrib/systemd/master.service");
    let installed = "/usr/local/libexec/master/master ";
    assert!(unit.contains(installed));
    let unit = unit.replace(installed, concat!(env!("CARGO_BIN_EXE_master"), " "));
    let path = standalone.path().join("master.service");
    fs::write(&path, unit).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        run(command.args(arguments).arg(&path), SOON)
    };
    let verified = analyze(&["verify", "--man=no"]).expect_success();
    assert_eq!(verified.stderr, "");
    // In tenths; up to 20, systemd rates the exposure as "OK".
    analyze(&["security", "--offline=true", "--threshold=20"]).expect_success();
}

/// `clone(CLONE_PARENT)` makes processes whose parent is the master, which has not started them.
///
/// Without the fix: "waited 20s in vain for none of them to be left".
#[test]
fn processes_that_a_child_makes_children_of_the_master_are_reaped() {
    let mut standalone = Standalone::of_a_user();
    let made = standalone.path().join("made");
    // clone(2) on x86_64, and on the machines that have their numbers from asm-generic.
    let clone = if cfg!(target_arch = "x86_64") {
        56
    } else {
        220
    };
    let program = format!(
        "for (1..100) {{ exit if syscall({clone}, 0x8011, 0, 0, 0, 0) == 0 }} \
         open(F, \">\", \"{}\"); exec \"sleep\", 1000",
        made.display()
    );
    let script = standalone.script("maker", &format!("exec perl -e '{program}'"));
    standalone.write_table(&format!("maker fifo n - - 1000 1 {}\n", script.display()));
    standalone.start();
    until(SOON, "the processes", || made.exists());
    let master = standalone.process();
    until(SOON, "none of them to be left", || {
        !master.has_child_with_name("perl")
    });
}

/// A process that traces a child keeps its end to itself, and the master cannot reap it.
///
/// Without the fix: "busy for 1s of 1s".
#[test]
fn a_child_whose_end_another_process_keeps_costs_no_time() {
    if !cfg!(target_arch = "x86_64") {
        skip("the test has the numbers of x86_64");
    }
    let mut standalone = Standalone::of_a_user();
    let tracer = standalone.path().join("tracer");
    // prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); ptrace(PTRACE_SEIZE, parent)
    let program = format!(
        "open(L, \"<&=6\"); sysread(L, $_, 1); syscall(157, 0x59616d61, -1, 0, 0, 0); pipe(R, W); \
         if (fork == 0) {{ syscall(101, 0x4206, getppid(), 0, 0) == 0 or die; \
         open(F, \">\", \"{}.new\"); print F $$; close F; rename \"{0}.new\", \"{0}\"; \
         close W; close R; exec \"sleep\", 1000 }} close W; <R>;",
        tracer.display()
    );
    let script = standalone.script("traced", &format!("exec perl -e '{program}'"));
    standalone.write_table(&format!("traced fifo n - - 1000 1 {}\n", script.display()));
    standalone.start();
    until(SOON, "the tracer", || tracer.exists());
    let pid = fs::read_to_string(&tracer).expect("its process ID");
    let tracer = Process(pid.parse().expect("a number"));
    let master = standalone.process();
    until(SOON, "the child's end", || {
        master.children_and_zombies().iter().any(|c| !c.runs())
    });
    expect_rest(master, Duration::from_secs(1));
    tracer.signal(Signal::SIGKILL);
    until(SOON, "the child to be reaped", || {
        master.children_and_zombies().is_empty()
    });
}
