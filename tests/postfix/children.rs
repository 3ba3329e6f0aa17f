//! Tests that the environment of a new child is the same as under Postfix's own master. Both
//! masters start the same configuration in the same place, one after the other, and the kernel's
//! facts about every child are compared.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::instance::{Instance, SOON};
use testkit::network::{REMOTE, in_own_network};
use testkit::poll::until;
use testkit::process::{Kind, Process, Socket};
use testkit::{needs_root, original, test, under_test};

/// The compared facts, as readable text.
type Facts = BTreeMap<&'static str, String>;

fn facts(process: Process, master: Process) -> Facts {
    let mut environment = process.environ();
    if let Some(generation) = environment.get_mut("GENERATION") {
        *generation = match u32::from_str_radix(generation, 8) {
            Ok(1..) if !generation.starts_with('0') => "an octal number".to_owned(),
            _ => format!("{generation:?}, which is not octal"),
        };
    }
    // A daemon's own descriptors vary, so inherited ones are compared for the inert script.
    let inert = is_inert(process);
    let descriptors: BTreeMap<i32, String> = process
        .descriptors()
        .into_iter()
        // `a_child_writes_its_errors_to_a_socket`
        .filter(|(number, _)| *number != 2)
        .filter(|(number, descriptor)| inert || *number <= 5 || descriptor.kind.is_listener())
        .map(|(number, descriptor)| {
            let kind = match descriptor.kind {
                Kind::Socket(Socket {
                    family: "unix",
                    kind: "stream",
                    listening: false,
                    local,
                }) if number == 5 && local.is_empty() => "the status channel".to_owned(),
                kind => kind.to_string(),
            };
            (number, format!("{kind}, flags {:o}", descriptor.flags))
        })
        .collect();
    let signals = process.signals();
    BTreeMap::from([
        ("environment", format!("{environment:#?}")),
        ("descriptors", format!("{descriptors:#?}")),
        ("user", format!("{:?}", process.uids())),
        ("group", format!("{:?}", process.gids())),
        ("groups", process.groups()),
        ("directory", process.cwd().display().to_string()),
        ("root", process.root().display().to_string()),
        ("executable", process.executable().display().to_string()),
        ("umask", process.umask()),
        ("limits", limits(process)),
        ("blocked signals", format!("{:x}", signals.blocked)),
        ("ignored signals", format!("{:x}", signals.ignored)),
        ("caught signals", format!("{:x}", signals.caught)),
        (
            "in the master's process group",
            (process.group() == master.group()).to_string(),
        ),
        (
            "in the master's session",
            (process.session() == master.session()).to_string(),
        ),
    ])
}

/// All but that on descriptors: `the_limit_on_descriptors_is_raised_for_the_master_alone`.
fn limits(process: Process) -> String {
    let mut limits = process.limits();
    limits.retain(|line| !line.starts_with("Max open files"));
    limits.join("\n")
}

/// Whether it runs the script of [`configure`], which only sleeps.
fn is_inert(process: Process) -> bool {
    let command = process.cmdline();
    command.first().is_some_and(|name| name == "sleep")
}

/// Whether it has finished its initialization. A daemon that sleeps outside its loop waits for the
/// disk, or for its turn to accept, and has not installed all of its signal handlers.
fn is_settled(child: Process) -> bool {
    if is_inert(child) {
        child.sleeps()
    } else {
        child.is_idle()
    }
}

/// The facts about all initialized children, by command line.
fn all_facts(instance: &Instance) -> BTreeMap<String, Facts> {
    let master = instance.master_process();
    let children = instance.children().into_iter();
    children
        .filter(|child| is_settled(*child))
        .map(|child| (child.cmdline().join(" "), facts(child, master)))
        .collect()
}

/// Facts about `children` command lines that have not changed for some time, so that all daemons
/// have opened their files.
fn settled_facts(instance: &Instance, children: usize) -> BTreeMap<String, Facts> {
    let mut last = BTreeMap::new();
    let mut since = Instant::now();
    until(SOON, format_args!("{children} quiet children"), || {
        let now = all_facts(instance);
        if now != last || now.len() != children {
            last = now;
            since = Instant::now();
        }
        since.elapsed() > Duration::from_millis(400)
    });
    last
}

/// Connects to every service, so that it starts a child.
fn knock(instance: &Instance, table: &[(String, String, String)]) {
    for (name, kind, class) in table {
        let path = instance.socket(class, name);
        match kind.as_str() {
            "inet" => {
                let address = match name.rsplit_once(':') {
                    Some((_, port)) => format!("127.0.0.1:{port}"),
                    None => format!("127.0.0.1:{name}"),
                };
                drop(TcpStream::connect(address).expect("a listener"));
            }
            "unix" | "pass" => drop(UnixStream::connect(path).expect("a listener")),
            "fifo" => {
                let mut options = OpenOptions::new();
                options.write(true).custom_flags(nix::libc::O_NONBLOCK);
                let fifo = options.open(path);
                fifo.expect("a reader").write_all(b"W").expect("a reader");
            }
            // `postlog`, to which the master itself connects.
            _ => {}
        }
    }
}

/// The name, type and directory of each line of the table.
fn table(instance: &Instance) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(instance.master_cf()).expect("master.cf");
    text.lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let class = if words[2] == "n" { "public" } else { "private" };
            (words[0].into(), words[1].into(), class.into())
        })
        .collect()
}

#[test]
fn every_daemon_finds_what_it_finds_under_the_original() {
    needs_root("to run a mail system");
    in_own_network(|| {
        let mut postfix = Instance::mail();
        configure(&mut postfix);
        let mut observe = |binary: &Path| {
            postfix.use_master(binary);
            postfix.start();
            let table = table(&postfix);
            knock(&postfix, &table);
            let facts = settled_facts(&postfix, table.len());
            postfix.stop();
            facts
        };
        let expected = observe(&original());
        let found = observe(&under_test());
        compare(&expected, &found);
    });
}

/// Services that use all columns of the table.
fn configure(postfix: &mut Instance) {
    // In its own network namespace, all ports are free.
    let (limited, wide, two, single) = (1025, 1026, 1027, 1028);
    // A program that keeps everything it was given, which Postfix's daemons do not.
    postfix.install_script("inert", "exec sleep 1000");
    postfix
        .set("inet_interfaces", format!("127.0.0.1, {REMOTE}"))
        .environment("LANG", "de_DE.UTF-8")
        .environment("TZ", "UTC")
        .environment("DISPLAY", "host.test:0")
        .environment("NOT_FOR_CHILDREN", "secret")
        .service(&format!("127.0.0.1:{limited} inet n - n - 5 smtpd"))
        .service(&format!("0.0.0.0:{wide} inet n - n - - smtpd"))
        .service(&format!("{two} inet n - n - - smtpd"))
        .service(&format!(
            "127.0.0.1:{single} inet n - n - 1 smtpd -o {{ mynetworks = 127.0.0.1, 10.0.0.0/8 }}"
        ))
        .service("smtpd pass - - n - - smtpd")
        .service("fifopick fifo n - n 60 1 pickup")
        .service("showq unix n - y - - showq")
        .service("inert unix - - n - - inert")
        .service("discard unix - - n - - discard -v");
}

fn compare(expected: &BTreeMap<String, Facts>, found: &BTreeMap<String, Facts>) {
    let lines = |facts: &BTreeMap<String, Facts>| facts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(lines(found), lines(expected), "command lines");
    for (command, expected) in expected {
        for (name, expected) in expected {
            let found = &found[command][name];
            assert_eq!(found, expected, "{name} of {command}");
        }
    }
}
