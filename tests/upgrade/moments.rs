//! Upgrades at a bad moment: during a reload, a look-up of a name, a stop, the fill of a pool, and
//! operators' commands.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::{F_SETLEASE, F_WRLCK, SIGURG, fcntl};
use nix::sys::signal::Signal;
use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::name_server::{self, ADDRESS, HOST, NameServer};
use testkit::network::in_own_network;
use testkit::operator::{masterctl, read_document, service, told};
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::example;
use testkit::puppet::Puppets;
use testkit::puppet_service::PuppetService;
use testkit::run::{Running, contents};
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

use crate::stage::{VERSION, upgrade};

/// From linux/fcntl.h; the crate libc does not have it.
const F_SETSIG: i32 = 10;
/// Most of the second that an exec may take.
const MOST: Duration = Duration::from_millis(900);

#[test]
fn a_reload_that_waits_for_a_name_server_asks_it_again() {
    needs_root("to have a network and files of its own");
    in_own_network(|| {
        let server = NameServer::start();
        let mut postfix = Instance::bare();
        let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
        let mut command = name_server::master(&postfix);
        postfix.run_in_foreground(&mut command);
        let named = PuppetService::add(&mut postfix, &format!("{HOST}:7070"), "inet n - n - -");
        postfix.write_configuration();
        let mark = postfix.log().len();
        postfix.hang_up();
        let question = server.question();
        let master = postfix.master_process();
        let before = master.copies();
        master.signal(Signal::SIGUSR2);
        postfix.wait_for_log_after(mark, "upgraded from ");
        // The first process that looks the name up is not needed any more.
        until(SOON, "its end", || before.iter().all(|copy| !copy.runs()));
        let (_client, _child) = service.serve();
        let asked_again = server.question();
        server.answer(&question);
        server.answer_while(&asked_again, || {
            postfix.wait_for_log_after(mark, "reload done: services: 1 added");
        });
        let _client = Client::connect(&format!("{ADDRESS}:7070"));
        named.next().take_client();
    });
}

#[test]
fn a_reload_of_many_services_is_over_before_or_begins_anew() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let command = standalone.greeter();
    let table = |name: &str, services: usize| -> String {
        let line = |n| format!("{name}{n} unix n - - - 5 {command}\n");
        (0..services).map(line).collect()
    };
    standalone.write_table(&table("a", 500)).start();
    for (name, services) in [("b", 600), ("c", 100), ("d", 900)] {
        standalone.write_table(&table(name, services));
        standalone.process().signal(Signal::SIGHUP);
        let before = read_document(&standalone).upgrades;
        standalone.process().signal(Signal::SIGUSR2);
        until(SOON, "the upgrade, and the new table", || {
            let document = read_document(&standalone);
            let is_new = |s: &master::status::Service| s.name.starts_with(name);
            document.upgrades > before
                && document.services.len() == services
                && document.services.iter().all(is_new)
        });
        let last = standalone
            .queue()
            .join(format!("public/{name}{}", services - 1));
        assert_eq!(Client::connect(&last.to_string_lossy()).line(), "hello");
    }
    let said = standalone.said();
    assert!(!said.contains("reload failed"), "{said}");
}

/// A program that hangs when it is asked, and does not end by SIGALRM. Its process is returned.
fn hanging(standalone: &mut Standalone) -> (Running, Process) {
    let file = standalone.path().join("asked");
    let file = file.display();
    let words = format!(
        "trap '' ALRM\necho $$ >{file}.new\nmv {file}.new {file}\nwhile :; do sleep 1; done"
    );
    let script = standalone.script("hanging", &words);
    let arguments = ["upgrade", "--program", &script.to_string_lossy()];
    let operator = Running::start(&mut standalone.masterctl(&arguments));
    let process = until(SOON, "the program to be asked", || {
        contents(&standalone.path().join("asked"))
            .trim()
            .parse()
            .ok()
    });
    fs::remove_file(standalone.path().join("asked")).expect("a file");
    (operator, Process(process))
}

#[test]
fn a_program_that_hangs_leaves_nothing_behind_when_it_is_refused() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let (operator, program) = hanging(&mut standalone);
    let refused = operator.finish(SOON).expect_failure();
    assert!(
        refused.stderr.contains("it has not said within 5 s"),
        "{refused:?}"
    );
    until(SOON, "the end of the program", || !program.runs());
}

#[test]
fn a_second_request_is_refused_for_another_program_and_shares_the_answer_for_the_same() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let (first, program) = hanging(&mut standalone);
    let path = standalone.path().join("hanging");
    let same = ["upgrade", "--program", &path.to_string_lossy()];
    let same = Running::start(&mut standalone.masterctl(&same));
    let why = format!(
        "another upgrade, to {}, is under way: try again when it is over",
        path.display()
    );
    for arguments in [&["upgrade", "--program", "/bin/true"][..], &["upgrade"]] {
        let refused = masterctl(&standalone, arguments).expect_failure();
        assert!(refused.stderr.contains(&why), "{refused:?}");
        assert!(program.runs(), "the first goes on to be asked");
    }
    // A signal has no other answer than the log.
    let mark = standalone.said().len();
    standalone.process().signal(Signal::SIGUSR2);
    until(SOON, "a line", || standalone.said()[mark..].contains(&why));
    for operator in [first, same] {
        let refused = operator.finish(SOON).expect_failure();
        let silent = format!("{}: it has not said within 5 s", path.display());
        assert!(refused.stderr.contains(&silent), "{refused:?}");
    }
    let again = standalone.path().join("asked").exists();
    assert!(!again, "the program was asked once");
    upgrade(&standalone);
}

#[test]
fn a_stop_ends_the_program_that_is_asked_and_the_master_can_be_started_anew() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let (operator, program) = hanging(&mut standalone);
    standalone.stop_by(Signal::SIGTERM);
    let told = operator.finish(SOON).expect_failure();
    assert!(told.stderr.contains("has ended"), "{told:?}");
    // It has the lock and the listeners. Alone, it would have them for 5 seconds.
    until(SOON, "the end of the program", || !program.runs());
    standalone.start();
    upgrade(&standalone);
}

#[test]
fn a_signal_to_stop_is_obeyed_at_each_moment_of_an_upgrade() {
    for moment in 0..6 {
        let mut standalone = Standalone::of_a_user();
        standalone.write_table("a unix n - - - 5 true\n").start();
        let process = standalone.process();
        process.signal(Signal::SIGUSR2);
        let words = ["", "upgrading from ", "upgraded from "][moment % 3];
        standalone.wait_for_line(words);
        let finished = standalone.stop_by(Signal::SIGTERM);
        assert!(!finished.stderr.contains("starting anew"), "{finished:?}");
        assert!(
            finished.stderr.contains("terminating on signal 15"),
            "{finished:?}"
        );
        assert!(!standalone.queue().join("public/a").exists() || !process.runs());
    }
}

#[test]
fn an_upgrade_that_is_asked_for_during_a_stop_does_not_keep_the_master() {
    let mut standalone = Standalone::of_a_user();
    let (puppets, command) = Puppets::of(&standalone, "a");
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    standalone.write_toml("[service.\"a/unix\"]\nstop_timeout = \"2s\"\n");
    standalone.start();
    let socket = standalone.queue().join("public/a");
    let mut client = Client::connect(&socket.to_string_lossy());
    let mut child = puppets.next();
    child.take_client();
    child.wait_until_heard();
    let process = standalone.process();
    process.signal(Signal::SIGTERM);
    process.signal(Signal::SIGUSR2);
    let finished = standalone.stop_by(Signal::SIGUSR2);
    assert!(!finished.stderr.contains("upgrad"), "{finished:?}");
    drop(client.try_line());
}

#[test]
fn a_pool_that_is_being_filled_gets_as_many_children_as_it_is_to_have() {
    for ramp in ["single", "double"] {
        let mut standalone = Standalone::of_a_user();
        standalone.unwatched("the children are counted");
        let command = standalone.install(&example("hello"));
        let command = command.display();
        standalone.write_table(&format!("a unix n - - - 100 {command} serve\n"));
        standalone.write_toml(&format!(
            "[service.\"a/unix\"]\nmin_idle = 12\nspawn_ramp = \"{ramp}\"\n"
        ));
        standalone.start();
        let mut upgrades = 0;
        until(SOON, "a full pool", || {
            upgrade(&standalone);
            upgrades += 1;
            service(&standalone, "a").available == 12
        });
        upgrade(&standalone);
        let found = service(&standalone, "a");
        assert_eq!(
            (found.total, found.started),
            (12, 12),
            "after {upgrades}, {ramp}"
        );
        let children = standalone.process().children();
        let hello = children
            .iter()
            .filter(|child| child.executable().ends_with("hello"));
        assert_eq!(hello.count(), 12, "{ramp}");
    }
}

#[test]
fn each_command_of_an_operator_is_carried_out_and_answered() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let command = standalone.greeter();
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    standalone.start();
    upgrade(&standalone);
    let standalone = &standalone;
    let over = AtomicBool::new(false);
    let upgrades = thread::scope(|scope| {
        let upgrades = scope.spawn(|| {
            let mut upgrades = 0;
            while !over.load(Ordering::Relaxed) {
                upgrade(standalone);
                upgrades += 1;
            }
            upgrades
        });
        let commands = scope.spawn(|| {
            for n in 0..15 {
                told(standalone, &["pause", "a"]);
                assert!(service(standalone, "a").paused, "round {n}");
                told(standalone, &["resume", "a"]);
                assert!(!service(standalone, "a").paused, "round {n}");
                told(standalone, &["log-level", "verbose"]);
                told(standalone, &["log-level", "quiet"]);
                told(standalone, &["status"]);
                told(standalone, &["reload", "a"]);
                told(standalone, &["reload"]);
                told(standalone, &["top", "--once"]);
            }
        });
        let commanded = commands.join();
        over.store(true, Ordering::Relaxed);
        let upgrades = upgrades.join().expect("upgrades");
        commanded.expect("commands");
        upgrades
    });
    let document = read_document(standalone);
    assert_eq!(document.upgrades, upgrades + 1);
    assert!(document.reloads >= 15, "{}", document.reloads);
    assert!(!document.verbose && document.version == VERSION);
    let refused = masterctl(standalone, &["upgrade", "--program", "/bin/false"]);
    refused.expect_failure();
}

/// One program begins to hang after the other: whenever the upgrade waits no longer, one is in its
/// exec, and nothing ends it if the next version does not know of it.
#[test]
fn a_program_that_hangs_in_exec_is_ended_by_the_next_version() {
    let mut standalone = Standalone::of_a_user();
    let program = standalone.install(Path::new("/bin/true"));
    let command = program.display();
    let names = ["a", "b", "c"];
    standalone.write_table(
        &names
            .map(|name| format!("{name} unix n - - - 1 {command}\n"))
            .concat(),
    );
    standalone.start();
    let file = File::options().write(true).open(&program);
    let file = file.expect("a program");
    // The kernel lets a program with a write lease be executed after 45 seconds. SIGIO is for its owner.
    until(SOON, "a lease", || {
        // SAFETY: neither call has a pointer. SIGURG is ignored.
        unsafe {
            fcntl(file.as_raw_fd(), F_SETSIG, SIGURG);
            fcntl(file.as_raw_fd(), F_SETLEASE, F_WRLCK) == 0
        }
    });
    let directory = standalone.queue().join("public");
    let master = standalone.process();
    let _clients = names.map(|name| {
        let client = UnixStream::connect(directory.join(name)).expect("a listener");
        let began = Instant::now();
        until(SOON, "a child", || !master.children().is_empty());
        if name == "a" {
            master.signal(Signal::SIGUSR2);
        }
        until(SOON, "most of its time", || began.elapsed() >= MOST);
        client
    });
    standalone.wait_for_line("upgraded from ");
    until(SOON, "a line for each", || {
        standalone.said().matches("hangs in exec").count() == names.len()
    });
}
