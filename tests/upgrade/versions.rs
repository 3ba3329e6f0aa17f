//! Other versions of the program: a copy that says that it is the next one, and states of former and
//! later ones.

use std::fs;
use std::path::PathBuf;

use master::upgrade::FORMAT;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::{masterctl, read_document, service, told};
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::{skip, test};

use crate::stage::{VERSION, upgrade};

/// A text of the same length, with another last character.
fn next_version() -> String {
    let (rest, last) = VERSION.split_at(VERSION.len() - 1);
    let last = if last == "9" { "8" } else { "9" };
    format!("{rest}{last}")
}

/// A copy of the program that has this version in the place of its own.
fn with_version(standalone: &Standalone, version: &str) -> PathBuf {
    let mut bytes = fs::read(testkit::programs::master()).expect("the master");
    let mut found = false;
    for at in 0..bytes.len() - VERSION.len() {
        if bytes[at..].starts_with(VERSION.as_bytes()) {
            bytes[at..at + VERSION.len()].copy_from_slice(version.as_bytes());
            found = true;
        }
    }
    if !found {
        skip("the compiler has not put the version into the program as a text");
    }
    let drafts = standalone.path().join("drafts");
    fs::create_dir(&drafts).expect("a directory");
    let draft = drafts.join("master.next");
    fs::write(&draft, bytes).expect("a program");
    standalone.install(&draft)
}

/// A program that replaces texts of the state before the master reads it.
fn with_state(standalone: &Standalone, changes: &[(&str, &str)]) -> PathBuf {
    let list: Vec<String> = changes
        .iter()
        .map(|(old, new)| format!("(rb'''{old}''', rb'''{new}''')"))
        .collect();
    let (list, master) = (list.join(", "), standalone.path().join("master"));
    let program = format!(
        r#"import fcntl, os, sys
def changed(fd):
    text = os.pread(fd, 1 << 20, 0)
    for old, new in [{list}]:
        assert old in text
        text = text.replace(old, new, 1)
    state = os.memfd_create("state", os.MFD_ALLOW_SEALING)
    os.write(state, text)
    fcntl.fcntl(state, 1033, 15)  # F_ADD_SEALS, all
    os.set_inheritable(state, True)
    return str(state)
arguments = sys.argv[1:]
if arguments[0] == "--resume-check":
    arguments[1] = changed(int(arguments[1]))
else:
    process, fd = os.environ["MASTER_RESUME"].split()
    os.environ["MASTER_RESUME"] = process + " " + changed(int(fd))
os.execv("{master}", ["{master}", *arguments])
"#,
        master = master.display()
    );
    let file = standalone.path().join("changed.py");
    fs::write(&file, program).expect("a program");
    let words = format!("exec python3 {} \"$@\"", file.display());
    standalone.script("changed", &words)
}

/// A master with a service that has a child.
fn serving() -> Standalone {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let command = standalone.greeter();
    standalone.write_table(&format!("a unix n - - - 5 {command}\n"));
    standalone.start();
    greeted(&standalone);
    standalone
}

fn greeted(standalone: &Standalone) {
    let socket = standalone.queue().join("public/a");
    assert_eq!(Client::connect(&socket.to_string_lossy()).line(), "hello");
}

#[test]
fn another_version_goes_on_and_the_former_one_after_it() {
    let mut standalone = serving();
    let next = next_version();
    let program = with_version(&standalone, &next);
    let program = program.to_string_lossy();
    let said = told(&standalone, &["upgrade", "--program", &program]);
    assert_eq!(said, format!("upgraded: version {next} serves\n"));
    standalone.wait_for_line(&format!(
        "upgraded from {VERSION} to {next}: 1 service, 1 child, 0 lost, took "
    ));
    let document = read_document(&standalone);
    let last = document.last_upgrade.expect("an upgrade");
    assert_eq!((&document.version, &*last.from), (&next, VERSION));
    assert_eq!(document.services[0].started, 1);
    greeted(&standalone);
    // Both have the same format of the state, so that there is a way back, too.
    upgrade(&standalone);
    standalone.wait_for_line(&format!(
        "upgraded from {next} to {VERSION}: 1 service, 1 child, "
    ));
    let document = read_document(&standalone);
    assert_eq!((document.version.as_str(), document.upgrades), (VERSION, 2));
    assert_eq!(document.last_upgrade.expect("an upgrade").from, next);
    let said = standalone.said();
    assert!(!said.contains("ignoring fields"), "{said}");
    greeted(&standalone);
}

#[test]
fn an_older_program_refuses_a_state_of_a_later_format() {
    let mut standalone = serving();
    let format = format!("\"format\":{FORMAT},");
    let later = format!("\"format\":{},", FORMAT + 1);
    let program = with_state(&standalone, &[(&format, &later)]);
    let program = program.to_string_lossy();
    let refused = masterctl(&standalone, &["upgrade", "--program", &program]);
    let why = format!(
        "the state of version {VERSION} has format {}, and version {VERSION} knows formats up to \
         {FORMAT}: it is an older program, to which only a restart leads back",
        FORMAT + 1
    );
    let refused = refused.expect_failure();
    assert!(refused.stderr.contains(&why), "{refused:?}");
    standalone.wait_for_line(&why);
    assert_eq!(read_document(&standalone).upgrades, 0);
    greeted(&standalone);
}

#[test]
fn what_a_program_does_not_know_of_anothers_state_is_named_and_the_rest_goes_on() {
    let mut standalone = serving();
    let own = format!("\"version\":\"{VERSION}\"");
    let changes = [
        (&*own, "\"version\":\"0.0.1\",\"colour\":\"red\""),
        ("\"history\":{", "\"history\":{\"epoch\":7,"),
    ];
    let program = with_state(&standalone, &changes);
    told(
        &standalone,
        &["upgrade", "--program", &program.to_string_lossy()],
    );
    standalone.wait_for_line(
        "warning: ignoring fields of the former program's state: colour, history.epoch",
    );
    standalone.wait_for_line(&format!(
        "upgraded from 0.0.1 to {VERSION}: 1 service, 1 child, 0 lost"
    ));
    let document = read_document(&standalone);
    assert_eq!(document.last_upgrade.expect("an upgrade").from, "0.0.1");
    // They are not handed on.
    upgrade(&standalone);
    assert_eq!(standalone.said().matches("ignoring fields").count(), 1);
    greeted(&standalone);
}

/// It cannot say any more that it has a client, and reads end of file.
#[test]
fn a_child_whose_channel_was_lost_is_not_counted_on() {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let deaf = standalone.script("deaf", "exec sleep 1000");
    standalone.write_table(&format!("a unix n - - - 5 {}\n", deaf.display()));
    standalone.start();
    let _client = Client::connect(&standalone.queue().join("public/a").to_string_lossy());
    let counts = || {
        let service = service(&standalone, "a");
        (service.available, service.total)
    };
    until(SOON, "a child", || counts() == (1, 1));
    let channel = "\"channel\":{\"fd\":";
    let program = with_state(&standalone, &[(channel, &format!("{channel}9999"))]);
    told(
        &standalone,
        &["upgrade", "--program", &program.to_string_lossy()],
    );
    // Another is started for the client that waits.
    until(SOON, "another child", || counts() == (1, 2));
    standalone.wait_for_line(
        "warning: children that have lost their channel in an upgrade, and leave: 1",
    );
}

#[test]
fn an_operator_sees_how_often_and_from_what_the_master_was_upgraded() {
    let standalone = serving();
    upgrade(&standalone);
    let shown = |arguments: &[&str]| told(&standalone, arguments);
    let version = format!("master {VERSION}");
    let status = shown(&["status"]);
    assert!(status.contains(&version), "{status}");
    assert!(status.contains("\nupgraded once "), "{status}");
    assert!(
        status.contains(&format!(" ago from {VERSION}\n")),
        "{status}"
    );
    upgrade(&standalone);
    let status = shown(&["status"]);
    assert!(status.contains("\nupgraded 2 times, last "), "{status}");
    let top = shown(&["top", "--once"]);
    let first = top.lines().next().unwrap_or_default();
    assert!(
        first.starts_with(&version) && first.contains("  upgraded "),
        "{top}"
    );
    assert!(first.contains(" ago (2 times)  "), "{top}");
}
