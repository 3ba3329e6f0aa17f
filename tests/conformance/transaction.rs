//! Failed reloads: in our master they change nothing, in the original they end the mail system.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use testkit::client::{Client, expect_refusal};
use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::layout::replace;
use testkit::network::{LOOPBACK_2, in_own_network};
use testkit::poll::until;
use testkit::puppet_service::PuppetService;
use testkit::{needs_root, test};

const SERVES_ON: &str = "a line says why, and the master serves on as before";
const EXITS: &str = "the master exits";

/// Makes the configuration wrong by `spoil` and reloads. The log must then contain a line with all
/// of `complaint`; `repair` corrects the configuration.
fn a_failed_reload(
    postfix: &mut Instance,
    complaint: &[&str],
    spoil: impl FnOnce(&mut Instance),
    repair: impl FnOnce(&mut Instance),
) -> &'static str {
    let service = PuppetService::add(postfix, "a", "unix - - n - -");
    postfix.start();
    let (mut client, mut busy) = service.serve();
    let master = postfix.master_process();
    let table = fs::read_to_string(postfix.master_cf()).expect("a table");
    let mark = postfix.log().len();
    spoil(postfix);
    postfix.hang_up();
    let line = until(SOON, format_args!("an end or {complaint:?}"), || {
        let log = postfix.log();
        let mut news = log.get(mark..)?.lines();
        let said = |line: &&str| complaint.iter().all(|text| line.contains(text));
        let line = news.find(|line| line.contains(": error: ") && said(line));
        if master.runs() {
            Some(Some(line?.to_owned()))
        } else {
            Some(None)
        }
    });
    if line.is_none() {
        return EXITS;
    }
    postfix.wait_for_log_after(mark, "reload failed and changed nothing");
    // The child was not told to leave, a new child is the same, and the old table is in force.
    busy.tell("write hello");
    assert_eq!(client.line(), "hello");
    let (_client, next) = service.serve();
    assert_eq!(next.given(), busy.given());
    assert!(busy.process.runs(), "the busy child");
    repair(postfix);
    replace(&postfix.master_cf(), &table);
    let mark = postfix.log().len();
    postfix.hang_up();
    postfix.wait_for_reload_after(mark);
    busy.wait_for_end();
    service.serve();
    assert_eq!(postfix.master_process(), master);
    SERVES_ON
}

/// "If anything is wrong, it logs every problem and the line `reload failed and changed nothing`,
/// undoes what it opened, and serves on as before."
#[test]
fn a_reload_with_a_broken_service_table_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A mistake in master.cf does not end a running mail system on reload.",
        Observed {
            ours: "a line says why, and the master serves on as before",
            original: "the master exits",
        },
        |postfix| {
            let table = postfix.master_cf().display().to_string();
            let broken = "# comment\nbroken inert n n n\n";
            let spoil = |postfix: &mut Instance| replace(&postfix.master_cf(), broken);
            a_failed_reload(postfix, &[&table, "line 2", "inert"], spoil, |_| ())
        },
    );
}

/// "An empty table is an error of a reload": a full disk leaves one behind.
#[test]
fn a_reload_with_an_empty_service_table_takes_no_service_away() {
    needs_root("to run a master");
    differs(
        "An empty master.cf, as a full disk leaves it, does not end all services on reload.",
        Observed {
            ours: "a line says why, and the master serves on as before",
            original: "no client is served any more",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (_client, busy) = service.serve();
            let table = fs::read_to_string(postfix.master_cf()).expect("a table");
            let mark = postfix.log().len();
            replace(&postfix.master_cf(), "# saved by an editor\n");
            postfix.hang_up();
            let failed = "reload failed and changed nothing";
            // Both masters tell a child of a removed service to leave, and no other one.
            let removed = until(SOON, "the end of the reload", || {
                let gone = !busy.process.runs();
                let failed = postfix.log()[mark..].contains(failed);
                (gone || failed).then_some(gone)
            });
            let refused = Client::try_connect(&service.address).is_err();
            assert_eq!(refused, removed);
            if removed {
                return "no client is served any more";
            }
            postfix.wait_for_log_after(mark, "the service table is empty");
            service.serve();
            assert!(busy.process.runs(), "the busy child");
            replace(&postfix.master_cf(), &table);
            let mark = postfix.log().len();
            postfix.hang_up();
            postfix.wait_for_reload_after(mark);
            SERVES_ON
        },
    );
}

/// "a missing file"
#[test]
fn a_reload_without_a_service_table_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A missing master.cf does not end a running mail system on reload.",
        Observed {
            ours: "a line says why, and the master serves on as before",
            original: "the master exits",
        },
        |postfix| {
            let table = postfix.master_cf().display().to_string();
            let spoil = |postfix: &mut Instance| {
                fs::remove_file(postfix.master_cf()).expect("a table");
            };
            a_failed_reload(postfix, &[&table, "No such file"], spoil, |_| ())
        },
    );
}

/// "A mistake in main.cf"
#[test]
fn a_reload_with_a_broken_main_cf_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A mistake in main.cf does not end a running mail system on reload.",
        Observed {
            ours: "a line says why, and the master serves on as before",
            original: "the master exits",
        },
        |postfix| {
            let main_cf = postfix.main_cf().display().to_string();
            let spoil = |postfix: &mut Instance| {
                let text = fs::read_to_string(postfix.main_cf()).expect("main.cf");
                let broken = format!("\n# comment\nsoft_bounce\n{text}");
                replace(&postfix.main_cf(), &broken);
            };
            let repair = |postfix: &mut Instance| postfix.write_configuration();
            a_failed_reload(postfix, &[&main_cf, "line 3"], spoil, repair)
        },
    );
}

/// "is named by its number": some editors write a byte-order mark, and none shows it.
#[test]
fn a_byte_order_mark_in_main_cf_is_named() {
    needs_root("to run a master");
    differs(
        "A byte-order mark before the first parameter of main.cf does not hide that parameter.",
        Observed {
            ours: "a line names the character, and a reload changes nothing",
            original: "the parameter has its default, and no line says so",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            service.serve();
            let mark = postfix.log().len();
            let text = fs::read_to_string(postfix.main_cf()).expect("main.cf");
            replace(&postfix.main_cf(), &format!("\u{feff}{text}"));
            postfix.hang_up();
            let failed = "reload failed and changed nothing";
            postfix.wait_for_reload_after(mark);
            let news = postfix.log().split_off(mark);
            postfix.write_configuration();
            if news.contains(failed) {
                let named = "main.cf: line 1: column 1: unexpected character U+FEFF";
                assert!(news.contains(named), "{news}");
                return "a line names the character, and a reload changes nothing";
            }
            assert!(
                !news.contains("FEFF") && !news.contains(" warning: "),
                "{news}"
            );
            "the parameter has its default, and no line says so"
        },
    );
}

/// "nor a bad value"
#[test]
fn a_reload_with_a_bad_value_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A bad value in main.cf does not end a running mail system on reload.",
        Observed {
            ours: "a line says why, and the master serves on as before",
            original: "the master exits",
        },
        |postfix| {
            let set = |postfix: &mut Instance, limit: &str| {
                postfix.set("default_process_limit", limit);
                postfix.write_configuration();
            };
            let complaint = ["default_process_limit", "many"];
            let spoil = |postfix: &mut Instance| set(postfix, "many");
            a_failed_reload(postfix, &complaint, spoil, |postfix| set(postfix, "100"))
        },
    );
}

/// "a port that another program has does not end a running mail system on reload"
#[test]
fn a_reload_with_a_port_that_somebody_else_holds_changes_nothing() {
    needs_root("to run a master");
    differs(
        "A port that another program has does not end a running mail system on reload.",
        Observed {
            ours: "a line says why, and the master serves on as before",
            original: "the master exits",
        },
        |postfix| {
            let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
            let taken = other.local_addr().expect("an address").to_string();
            // Services before and after it in the table must not appear, either.
            let free = postfix.address();
            let spoil = |postfix: &mut Instance| {
                for name in [&free, &taken] {
                    postfix.service(&format!("{name} inet n - n - - puppet"));
                }
                postfix.service("other unix - - n - 1 puppet");
                postfix.write_configuration();
            };
            a_failed_reload(postfix, &[&taken], spoil, |postfix| {
                assert!(Client::try_connect(&free).is_err(), "{free} listens");
                assert!(!postfix.socket("private", "other").exists());
            })
        },
    );
}

/// "Changes to [...] inet_interfaces on reload are refused with a warning [...]. Ours applies the
/// last two: a reload that is a transaction can."
#[test]
fn a_change_of_interfaces_takes_effect_on_reload() {
    needs_root("to run a master");
    differs(
        "A change of inet_interfaces takes effect on reload.",
        Observed {
            ours: "the new address listens",
            original: "a warning says that it is ignored",
        },
        |postfix| {
            let mut observed = "";
            in_own_network(|| observed = change_of_interfaces(postfix));
            observed
        },
    );
}

fn change_of_interfaces(postfix: &mut Instance) -> &'static str {
    let port = postfix.port();
    let [first, second] = ["127.0.0.1", LOOPBACK_2].map(|host| format!("{host}:{port}"));
    let service = PuppetService::add(postfix, &port.to_string(), "inet n - n - -");
    postfix.start();
    let master = postfix.master_process();
    postfix.set("inet_interfaces", format!("127.0.0.1, {LOOPBACK_2}"));
    postfix.reload();
    let Ok(_client) = Client::try_connect(&second) else {
        postfix.wait_for_log("ignoring inet_interfaces");
        return "a warning says that it is ignored";
    };
    service.next();
    postfix.set("inet_interfaces", LOOPBACK_2);
    postfix.reload();
    expect_refusal(&first);
    let _client = Client::connect(&second);
    assert_eq!(postfix.master_process(), master);
    "the new address listens"
}

/// "Changes to [...] inet_protocols [...]. Ours applies the last two"
#[test]
fn a_change_of_protocols_takes_effect_on_reload() {
    needs_root("to run a master");
    differs(
        "A change of inet_protocols takes effect on reload.",
        Observed {
            ours: "the new address listens",
            original: "a warning says that it is ignored",
        },
        |postfix| {
            let port = postfix.port();
            let service = PuppetService::add(postfix, &port.to_string(), "inet n - n - -");
            postfix.set("inet_interfaces", "loopback-only");
            postfix.start();
            expect_refusal(&format!("[::1]:{port}"));
            postfix.set("inet_protocols", "all");
            postfix.reload();
            let Ok(_client) = Client::try_connect(&format!("[::1]:{port}")) else {
                postfix.wait_for_log("ignoring inet_protocols");
                return "a warning says that it is ignored";
            };
            service.next();
            let _client = Client::connect(&postfix.address());
            "the new address listens"
        },
    );
}

/// "All findings of all files are reported, with line and column, not only the first."
#[test]
fn all_mistakes_are_reported_at_once() {
    needs_root("to run a master");
    differs(
        "All mistakes in the configuration are reported at once.",
        Observed {
            ours: "all of them are named",
            original: "one of them is named",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let (master, mark) = (postfix.master_process(), postfix.log().len());
            let mistakes = [
                "x teapot n n n - - x",
                "y unix n n n - few x",
                "z inet - n n - - x",
            ];
            replace(&postfix.master_cf(), &mistakes.join("\n"));
            postfix.hang_up();
            until(SOON, "the end of it", || {
                let over = "reload failed and changed nothing";
                !master.runs() || postfix.log().contains(over)
            });
            let news = postfix.log().split_off(mark);
            let named = (1..=3)
                .filter(|line| news.contains(&format!("line {line}:")))
                .count();
            drop(service);
            match named {
                3 => "all of them are named",
                1 => "one of them is named",
                _ => panic!("{news}"),
            }
        },
    );
}

/// "under Postfix a warning": root is told, and nothing ends.
#[test]
fn a_table_that_any_user_may_write_is_loaded_with_a_warning() {
    needs_root("to run a master");
    differs(
        "A master.cf that users other than root can change brings a warning at start and reload.",
        Observed {
            ours: "a warning names the file and the command that protects it",
            original: "no line",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let mode = fs::Permissions::from_mode(0o666);
            fs::set_permissions(postfix.master_cf(), mode).expect("a mode");
            let mark = postfix.log().len();
            postfix.hang_up();
            postfix.wait_for_reload_after(mark);
            service.serve();
            let table = postfix.master_cf().display().to_string();
            let warning = format!("may write to {table} (mode 666): \"chmod go-w {table}\"");
            if postfix.log()[mark..].contains(&warning) {
                "a warning names the file and the command that protects it"
            } else {
                "no line"
            }
        },
    );
}
