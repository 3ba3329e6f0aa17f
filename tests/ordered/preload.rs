//! Preloaded services: children that a template forks.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use testkit::client::{Client, talk};
use testkit::clock::Clock;
use testkit::instance::SOON;
use testkit::network::LOOPBACK_2;
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::executor;
use testkit::{file, needs_root, test};

use crate::load::{serve, serve_all};
use crate::pool::Pool;

const EXAMPLE: &str = "services/examples/preload.py";
pub const ORDERED: &str = "preload = true\naccept = \"ordered\"\nmin_children = 4\nmax_idle = 4\n";
pub const SHARED: &str = "preload = true\n";

pub fn pool(settings: &str) -> Pool {
    needs_root("children change their user");
    Pool::new(8, EXAMPLE, "nobody", settings)
}

/// The number of the descriptor of a template's socket, if the process has it.
fn socket(process: Process) -> Option<i32> {
    // Before its exec, a child has the master's.
    if !process.environ().contains_key("MASTER_TEMPLATE") {
        return None;
    }
    let mut all = process.descriptor_targets().into_iter();
    let socket = all.find(|(_, target)| target.contains("master.template"));
    socket.map(|(number, _)| number)
}

/// The template and the children of a pool.
pub fn processes(pool: &Pool) -> (Vec<Process>, Vec<Process>) {
    let all = pool.children().into_iter();
    all.partition(|process| socket(*process).is_some())
}

pub fn template(pool: &Pool) -> Process {
    let mut found = None;
    until(SOON, "a template", || {
        found = processes(pool).0.first().copied();
        found.is_some()
    });
    found.expect("a template")
}

#[track_caller]
pub fn wait_for_children(pool: &Pool, count: usize) {
    until(SOON, format_args!("{count} children"), || {
        processes(pool).1.len() == count
    });
}

#[test]
fn children_of_an_ordered_pool_are_forked_and_serve_every_client() {
    let pool = pool(ORDERED);
    wait_for_children(&pool, 4);
    let (templates, children) = processes(&pool);
    assert_eq!(templates.len(), 1, "{templates:?}");
    let master = pool.postfix.master_process();
    for child in children {
        assert_eq!(child.parent(), master.0);
        // It was not executed, and its descriptors are those of any child.
        assert_eq!(child.cmdline(), templates[0].cmdline());
        assert!(child.descriptors()[&6].kind.is_listener());
    }
    let load = serve_all(&pool.address, || {});
    assert!(!load.children.contains(&templates[0].0));
}

#[test]
fn children_that_share_the_listener_are_forked_and_serve_every_client() {
    let pool = pool(SHARED);
    let load = serve_all(&pool.address, || {});
    assert!(load.children.len() > 1, "{load:?}");
    assert_eq!(processes(&pool).0.len(), 1);
    let mut warnings = pool.postfix.log_lines("warning");
    // As many clients come at a time as there may be children, or more.
    warnings.retain(|line| !line.contains("process limit") && !line.contains("the maxproc column"));
    assert_eq!(warnings, [""; 0]);
}

/// Reloads, and asserts that the template and all children are others then, and serve.
#[track_caller]
fn expect_reload_to_replace_all(pool: &mut Pool) {
    let before = pool.children();
    pool.postfix.reload();
    until(SOON, "other processes", || {
        let now = pool.children();
        !now.is_empty() && now.iter().all(|process| !before.contains(process))
    });
    assert!(talk(&pool.address).is_some());
}

#[test]
fn children_in_perl_serve_every_client() {
    needs_root("children change their user");
    for settings in [ORDERED, SHARED] {
        let pool = Pool::new(8, "services/examples/preload.pl", "nobody", settings);
        serve_all(&pool.address, || {});
        let mut pool = pool;
        expect_reload_to_replace_all(&mut pool);
        assert_eq!(pool.postfix.log_lines("template"), [""; 0]);
    }
}

#[test]
fn children_in_rust_are_forked_and_serve_every_client() {
    needs_root("a mail system");
    for (settings, how) in [(ORDERED, "ordered"), (SHARED, "shared")] {
        let arguments = format!("-o max_use=20 {how}");
        let mut pool = Pool::rust(8, "preload", &arguments, settings);
        serve_all(&pool.address, || {});
        // Without a client, all children may have left after their last one.
        let mut client = Client::connect(&pool.address);
        client.line();
        let (templates, children) = processes(&pool);
        assert_eq!(templates.len(), 1, "{templates:?}");
        assert!(!children.is_empty());
        for child in &children {
            assert_eq!(child.cmdline(), templates[0].cmdline());
            assert_eq!(child.parent(), pool.postfix.master_process().0);
        }
        drop(client);
        expect_reload_to_replace_all(&mut pool);
        for failure in ["template", "rogue", "exit status", "killed by", "fatal"] {
            assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
        }
    }
}

#[test]
fn a_program_in_rust_that_cannot_be_preloaded_says_so() {
    needs_root("a mail system");
    let pool = Pool::rust(2, "ordered", "", ORDERED);
    let line = pool.postfix.wait_for_log("cannot be preloaded");
    assert!(line.contains("leave out preload = true"), "{line}");
}

#[test]
fn a_program_in_rust_that_can_be_preloaded_serves_without() {
    needs_root("a mail system");
    let pool = Pool::rust(2, "preload", "shared", "");
    assert!(talk(&pool.address).is_some());
    assert_eq!(pool.postfix.log_lines("warning"), [""; 0]);
}

#[test]
fn a_preloaded_pool_serves_a_web_application_in_python() {
    needs_root("children change their user");
    for settings in [ORDERED, SHARED] {
        let wsgi = "services/examples/wsgi.py";
        let mut pool = Pool::stopped(8, wsgi, "nobody", settings);
        pool.postfix.install(&file(EXAMPLE), "preload.py");
        pool.start();
        let pages: Vec<_> = (0..50)
            .map(|n| {
                let mut client = Client::connect(&pool.address);
                client.say(&format!("GET /page-{n} HTTP/1.0"));
                client.say("");
                let mut lines = vec![client.line()];
                while lines.last().is_some_and(|line| !line.contains("PATH_INFO")) {
                    lines.push(client.line());
                }
                lines
            })
            .collect();
        for (n, page) in pages.iter().enumerate() {
            assert!(page[0].starts_with("HTTP/1.0 200 OK"), "{page:?}");
            let path = format!("PATH_INFO = '/page-{n}'");
            assert_eq!(page.last(), Some(&path), "{page:?}");
        }
        assert_eq!(pool.postfix.log_lines("warning"), [""; 0]);
    }
}

#[test]
fn limits_of_a_service_hold_for_its_template_and_its_children() {
    needs_root("children change their user");
    let settings = format!("{SHARED}limit_nofile = 300\nnice = 5\n");
    let mut pool = Pool::stopped(8, EXAMPLE, "nobody", &settings);
    pool.postfix.install(&executor(), "master-exec");
    pool.start();
    assert!(talk(&pool.address).is_some());
    let processes = pool.children();
    assert_eq!(processes.len(), 2);
    for process in processes {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.0)).expect("limits");
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let files: Vec<_> = files.expect("a limit").split_whitespace().collect();
        assert_eq!(files[3..5], ["300", "300"], "{limits}");
    }
}

#[test]
fn a_template_is_there_before_the_first_client() {
    let pool = pool(SHARED);
    let template = template(&pool);
    assert_eq!(processes(&pool).1, []);
    assert!(talk(&pool.address).is_some_and(|child| child != template.0));
}

#[test]
fn children_are_counted_and_limited_as_others_are() {
    let pool = pool(SHARED);
    let held: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Client::connect(&pool.address);
            let child = client.line();
            (client, child)
        })
        .collect();
    assert_eq!(processes(&pool).1.len(), 8);
    let mut more = Client::connect(&pool.address);
    assert_eq!(
        more.line_within(std::time::Duration::from_millis(200)),
        None
    );
    drop(held);
    assert!(more.line().parse::<i32>().is_ok());
}

#[test]
fn the_end_of_a_child_is_known_to_the_master() {
    let pool = pool(ORDERED);
    wait_for_children(&pool, 4);
    let child = processes(&pool).1[0];
    let mut client = None;
    // It must have a client, to be missed.
    for _ in 0..20 {
        let mut other = Client::connect(&pool.address);
        if other.line() == child.0.to_string() {
            client = Some(other);
            break;
        }
    }
    let _client = client;
    child.signal(Signal::SIGKILL);
    pool.postfix
        .wait_for_log(&format!("pid {} killed by signal 9", child.0));
    wait_for_children(&pool, 4);
}

#[test]
fn every_client_is_served_while_children_and_templates_are_killed() {
    let pool = pool(ORDERED);
    wait_for_children(&pool, 4);
    let mut nth = 0;
    let load = serve(&pool.address, crate::load::clients(), || {
        nth += 1;
        if nth % 20 == 5 {
            let (templates, children) = processes(&pool);
            let killed = if nth % 40 == 5 { children } else { templates };
            if let Some(process) = killed.first() {
                process.signal(Signal::SIGKILL);
            }
        }
    });
    assert_eq!(load.lost, 0, "{load:?}");
}

#[test]
fn a_template_that_ends_throttles_its_service_and_its_children_serve_on() {
    let pool = pool(ORDERED);
    wait_for_children(&pool, 4);
    let children = processes(&pool).1;
    let first = template(&pool);
    first.signal(Signal::SIGKILL);
    pool.postfix.wait_for_log(&format!(
        "template process {} pid {} killed by signal 9",
        pool.postfix.daemons().join("preload.py").display(),
        first.0
    ));
    pool.postfix.wait_for_log("throttled for 1 s");
    assert!(talk(&pool.address).is_some());
    until(SOON, "another template", || {
        processes(&pool).0.iter().any(|other| *other != first)
    });
    assert_eq!(processes(&pool).1, children);
}

#[test]
fn a_master_that_ends_leaves_no_template_and_no_child_behind() {
    for stop in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut pool = pool(ORDERED);
        wait_for_children(&pool, 4);
        let all = pool.children();
        if stop == Signal::SIGTERM {
            pool.postfix.stop();
        } else {
            pool.postfix.master_process().signal(stop);
        }
        until(SOON, "their ends", || {
            !all.iter().any(|process| process.runs())
        });
    }
}

#[test]
fn a_reload_loads_a_new_template_and_then_replaces_the_children() {
    for settings in [ORDERED, SHARED] {
        let mut pool = pool(settings);
        assert!(talk(&pool.address).is_some());
        expect_reload_to_replace_all(&mut pool);
        assert_eq!(pool.postfix.log_lines("warning"), [""; 0]);
    }
}

#[test]
fn every_client_is_served_during_twenty_reloads() {
    for settings in [ORDERED, SHARED] {
        let pool = pool(settings);
        let mut reloads = 0;
        while reloads < 20 {
            serve_all(&pool.address, || {
                assert_eq!(pool.postfix.log_lines("reload failed"), [""; 0]);
                if reloads < 20 && pool.postfix.log_lines("reload done").len() == reloads {
                    reloads += 1;
                    pool.postfix.hang_up();
                }
            });
        }
        for failure in ["rogue", "exit status", "killed by", "SIGKILL", "template"] {
            assert_eq!(pool.postfix.log_lines(failure), [""; 0]);
        }
    }
}

#[test]
fn a_template_that_cannot_load_its_new_configuration_changes_nothing() {
    let (mut pool, mark) = rogue("load-exit", ORDERED);
    wait_for_children(&pool, 4);
    let before = pool.children();
    fs::write(mark, "").expect("a mark");
    pool.postfix.hang_up();
    pool.postfix
        .wait_for_log("the new template has not loaded: exit status 3");
    pool.postfix
        .wait_for_log("reload failed and changed nothing");
    assert_eq!(pool.children(), before);
    assert!(talk(&pool.address).is_some());
    assert_eq!(pool.postfix.log_lines("throttled"), [""; 0]);
    pool.postfix.reload();
}

#[test]
fn a_template_that_never_loads_is_killed_and_a_reload_that_waits_for_it_fails() {
    let (mut pool, mark) = rogue("load-hang", SHARED);
    pool.postfix.stop();
    let clock = Clock::install(&mut pool.postfix);
    fs::write(&mark, "").expect("a mark");
    pool.start();
    until(SOON, "a template that loads", || !mark.exists());
    clock.turn(&pool.postfix, 299);
    assert!(template(&pool).runs());
    clock.turn(&pool.postfix, 301);
    pool.postfix.wait_for_log("has not loaded within 300 s");
    clock.turn(&pool.postfix, 310);
    assert!(talk(&pool.address).is_some());
    fs::write(&mark, "").expect("a mark");
    pool.postfix.hang_up();
    until(SOON, "a new template that loads", || !mark.exists());
    assert!(talk(&pool.address).is_some());
    clock.turn(&pool.postfix, 620);
    pool.postfix
        .wait_for_log("the new template has not loaded: has not loaded within 300 s");
    assert!(talk(&pool.address).is_some());
}

#[test]
fn a_reload_while_a_template_loads_begins_anew() {
    let (mut pool, mark) = rogue("load-hang", SHARED);
    let first = template(&pool);
    // It has loaded.
    assert!(talk(&pool.address).is_some());
    fs::write(&mark, "").expect("a mark");
    pool.postfix.hang_up();
    until(SOON, "a new template that loads", || !mark.exists());
    assert_eq!(processes(&pool).0.len(), 2);
    // The second one loads.
    pool.postfix.reload();
    until(SOON, "one template, another one", || {
        let templates = processes(&pool).0;
        templates.len() == 1 && templates[0] != first
    });
    assert!(talk(&pool.address).is_some());
}

#[test]
fn preload_is_turned_on_and_off_by_a_reload() {
    let pool = pool(ORDERED);
    wait_for_children(&pool, 4);
    let mut pool = pool;
    let example = file("services/examples/ordered.py");
    pool.postfix.install(&example, "ordered.py");
    pool.become_of(8, "ordered.py nobody", "accept = \"ordered\"\n");
    until(SOON, "no template", || processes(&pool).0.is_empty());
    // A reload in the middle of their replacement would have those that are left replaced, too: then
    // there are more for a while.
    until(SOON, "children of the other program alone", || {
        let children = pool.children();
        let is_other = |child: &Process| {
            child
                .cmdline()
                .iter()
                .any(|word| word.ends_with("ordered.py"))
        };
        children.len() == 4 && children.iter().all(is_other)
    });
    assert!(talk(&pool.address).is_some());
    pool.become_of(8, "preload.py nobody", ORDERED);
    template(&pool);
    wait_for_children(&pool, 4);
    assert!(talk(&pool.address).is_some());
}

/// The reload would take the last template away. Without the fix, the next child that the template
/// forks is "no child of the master".
#[test]
fn a_reload_that_fails_leaves_children_of_templates_to_the_master() {
    let mut pool = pool(ORDERED);
    wait_for_children(&pool, 4);
    let mut other = pool.postfix.address();
    other.replace_range(..other.rfind(':').expect("a port"), LOOPBACK_2);
    let foreign = TcpListener::bind(&other).expect("a free port");
    pool.set("accept = \"ordered\"\n");
    pool.postfix
        .service(&format!("{other} inet n n n - 1 preload.py nobody"));
    pool.postfix.write_configuration();
    pool.postfix.hang_up();
    pool.postfix
        .wait_for_log("reload failed and changed nothing");
    let before = processes(&pool).1;
    before[0].signal(Signal::SIGKILL);
    until(SOON, "another child", || {
        let now = processes(&pool).1;
        now.len() == 4 && now != before
    });
    assert_eq!(pool.postfix.log_lines("no child of the master"), [""; 0]);
    assert!(talk(&pool.address).is_some());
    drop(foreign);
}

/// A pool whose template shows a fault once when the file is written that is returned.
pub fn rogue(kind: &str, settings: &str) -> (Pool, PathBuf) {
    needs_root("children change their user");
    let program = "tests/programs/rogue-template.py";
    let mut pool = Pool::stopped(8, program, "", settings);
    let mark = pool.postfix.path().join("mark");
    let (example, address) = (file(EXAMPLE), &pool.address);
    let line = format!(
        "{address} inet n n n - 8 rogue-template.py {} {kind} {} nobody",
        example.display(),
        mark.display()
    );
    pool.postfix.service(&line);
    pool.start();
    (pool, mark)
}

/// A pool whose template shows a fault while a client is served, which is served to its end, and another
/// one waits, which is served afterwards. The log says what the fault was.
#[track_caller]
pub fn served_in_spite_of(kind: &str, line: &str) -> Pool {
    let (pool, mark) = rogue(kind, SHARED);
    let mut first = Client::connect(&pool.address);
    let child = first.line();
    fs::write(&mark, "").expect("a mark");
    let mut second = Client::connect(&pool.address);
    pool.postfix.wait_for_log(line);
    first.say("hello");
    assert_eq!(first.line(), "hello", "child {child}");
    drop(first);
    assert!(second.line().parse::<i32>().is_ok());
    pool
}

/// Children serve on when their template shows a fault, the log says what it was, and clients that
/// need more children are served after the throttle.
#[track_caller]
fn clients_are_served_in_spite_of(kind: &str, line: &str) {
    let pool = served_in_spite_of(kind, line);
    pool.postfix.wait_for_log("throttled for 1 s");
    // Nothing is left of it.
    until(SOON, "one template and its child", || {
        let (templates, children) = processes(&pool);
        templates.len() == 1 && children.len() <= 2
    });
    assert!(talk(&pool.address).is_some());
}

#[test]
fn a_template_that_exits_is_replaced() {
    clients_are_served_in_spite_of("exit", "exit status 4");
}

#[test]
fn a_template_that_is_killed_is_replaced() {
    clients_are_served_in_spite_of("kill", "killed by signal 9");
}

#[test]
fn a_template_that_hangs_is_killed() {
    clients_are_served_in_spite_of("hang", "has not forked a child within 10 s that says hello");
}

#[test]
fn a_template_that_closes_its_channel_is_killed() {
    clients_are_served_in_spite_of("close", "has closed its channel and not ended within 1 s");
}

#[test]
fn a_template_that_says_something_unknown_is_killed() {
    clients_are_served_in_spite_of("garbage", "has sent \"spoon\", which is no answer");
}

#[test]
fn a_template_that_never_ends_its_line_is_killed() {
    clients_are_served_in_spite_of("long", "has sent a line that is too long");
}

#[test]
fn a_template_that_has_forked_twice_for_one_order_is_killed() {
    clients_are_served_in_spite_of("early", "has sent \"forked\", out of turn");
}

#[test]
fn a_template_that_is_ready_out_of_turn_is_killed() {
    clients_are_served_in_spite_of("again", "has sent \"ready\", out of turn");
}

#[test]
fn a_template_that_connects_twice_for_one_order_is_killed() {
    clients_are_served_in_spite_of("twice", "has connected out of turn");
}

#[test]
fn a_template_that_has_not_connected_is_killed() {
    // It shows its fault with its first order.
    let (pool, mark) = rogue("unconnected", SHARED);
    let first = template(&pool);
    fs::write(&mark, "").expect("a mark");
    first.signal(Signal::SIGKILL);
    let mut client = Client::connect(&pool.address);
    pool.postfix
        .wait_for_log("has forked without connecting before");
    assert!(client.line().parse::<i32>().is_ok());
}

#[test]
fn a_template_that_announces_itself_is_killed() {
    let (pool, mark) = rogue("self", SHARED);
    let first = template(&pool);
    fs::write(&mark, "").expect("a mark");
    first.signal(Signal::SIGKILL);
    let mut client = Client::connect(&pool.address);
    pool.postfix.wait_for_log(", which is known");
    assert!(client.line().parse::<i32>().is_ok());
}

#[test]
fn a_template_that_cannot_fork_stays_and_says_why() {
    clients_are_served_in_spite_of("failed", "has not forked a child: no room");
}

#[test]
fn a_template_that_sends_descriptors_is_killed() {
    clients_are_served_in_spite_of("descriptors", "template process ");
}

#[test]
fn a_template_whose_child_is_not_the_masters_is_killed() {
    clients_are_served_in_spite_of("once", "which is no child of the master");
}

#[test]
fn a_template_whose_child_says_nothing_is_killed() {
    clients_are_served_in_spite_of("nothing", "within 10 s that says hello");
}

#[test]
fn a_template_whose_child_does_not_answer_is_killed() {
    clients_are_served_in_spite_of("deaf", "within 10 s that says hello");
}

#[test]
fn a_child_that_leaves_before_it_is_known_throttles_its_service() {
    clients_are_served_in_spite_of("leave", "has forked a child that left at once");
}

/// The template says that it has forked only when the child has ended.
#[test]
fn a_child_that_ends_before_its_template_has_announced_it_is_one_like_others() {
    let (pool, mark) = rogue("ended", SHARED);
    fs::write(&mark, "").expect("a mark");
    assert!(talk(&pool.address).is_some());
    assert!(!mark.exists());
    for complaint in ["template", "throttled", "has forked"] {
        assert_eq!(pool.postfix.log_lines(complaint), [""; 0]);
    }
}

#[test]
fn a_template_that_forks_something_else_is_killed() {
    clients_are_served_in_spite_of("exec", "has a child that says \"hallo\\n\" and no hello");
}

#[test]
fn a_second_process_cannot_answer_for_a_child() {
    clients_are_served_in_spite_of("second", "has a second process answer for its child");
}

#[test]
fn a_child_that_connects_itself_is_refused_and_the_template_stays() {
    let (pool, mark) = rogue("forge", SHARED);
    let first = template(&pool);
    fs::write(mark, "").expect("a mark");
    assert!(talk(&pool.address).is_some());
    pool.postfix.wait_for_log(&format!(
        "refused a connection to the socket of template pid {} from process",
        first.0
    ));
    assert!(first.runs());
    assert!(talk(&pool.address).is_some());
}

#[test]
fn a_connection_of_a_foreign_process_is_refused_and_one_of_another_user_is_impossible() {
    let pool = pool(SHARED);
    let template = template(&pool);
    let socket = socket(template).expect("its socket");
    let path = format!("/proc/{}/fd/{socket}", template.0);
    let user = std::process::Command::new("/usr/bin/setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .args(["/usr/bin/python3", "-c"])
        .arg(format!(
            "import socket; socket.socket(socket.AF_UNIX).connect('{path}')"
        ))
        .output()
        .expect("setpriv");
    let said = String::from_utf8_lossy(&user.stderr).into_owned();
    assert!(said.contains("PermissionError"), "{said}");
    // Root may.
    let forged = UnixStream::connect(&path).expect("root may");
    // It may be closed already.
    let _ = std::io::Write::write_all(&mut &forged, b"hello\n");
    pool.postfix.wait_for_log(&format!(
        "from process {}, uid 0, which is not the template",
        std::process::id()
    ));
    // It is closed, perhaps before that was read.
    let answer = std::io::Read::read(&mut &forged, &mut [0]);
    assert!(!matches!(answer, Ok(1..)), "{answer:?}");
    assert!(talk(&pool.address).is_some());
    assert!(template.runs());
}
