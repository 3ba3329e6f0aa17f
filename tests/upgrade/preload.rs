//! Templates of preloaded services are carried over, with what they are doing, and so are the children
//! that they have forked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use master::status::{Template, TemplateState};
use nix::sys::signal::Signal;
use testkit::client::{Client, talk};
use testkit::instance::SOON;
use testkit::operator::{read_document, service};
use testkit::poll::until;
use testkit::process::Process;
use testkit::standalone::Standalone;
use testkit::{file, programs, test};

use crate::stage::upgrade;

const ORDERED: &str = "accept = \"ordered\"\nmin_children = 4\nmax_idle = 4\n";
const EXAMPLE: &str = "services/examples/preload.py";

/// A running master with a preloaded service that runs this command, of at most `most` children.
fn preloaded(mut standalone: Standalone, most: u32, command: &str, settings: &str) -> Standalone {
    standalone.unwatched("processes are counted");
    // A child waits for its client for a minute, and it may take that long to build this.
    programs::masterctl();
    standalone.write_table(&format!("a unix n n n - {most} {command}\n"));
    configure(&standalone, settings);
    standalone.start();
    standalone
}

fn configure(standalone: &Standalone, settings: &str) {
    standalone.write_toml(&format!(
        "service_kill_time = 5\n[service.\"a/unix\"]\nthrottle_time = 1\npreload = true\n{settings}"
    ));
}

fn python(most: u32, settings: &str) -> Standalone {
    let standalone = Standalone::of_a_user();
    let program = standalone.install(&file(EXAMPLE));
    preloaded(standalone, most, &program.display().to_string(), settings)
}

fn address(standalone: &Standalone) -> String {
    standalone.queue().join("public/a").display().to_string()
}

/// The template that has loaded and is the only one.
#[track_caller]
fn template(standalone: &Standalone) -> Process {
    until(SOON, "a template", || {
        match service(standalone, "a").templates[..] {
            [ref one] if one.state == TemplateState::Ready => Some(Process(one.pid)),
            _ => None,
        }
    })
}

/// The templates, once they are in these states.
#[track_caller]
fn templates(standalone: &Standalone, states: &[TemplateState]) -> Vec<Template> {
    until(SOON, format_args!("templates that are {states:?}"), || {
        let now = service(standalone, "a").templates;
        let is_so = now
            .iter()
            .map(|template| template.state)
            .eq(states.iter().copied());
        is_so.then_some(now)
    })
}

#[track_caller]
fn wait_for_children(standalone: &Standalone, count: u32) {
    until(SOON, format_args!("{count} children"), || {
        service(standalone, "a").available == count
    });
}

/// Nothing went wrong with templates and children.
#[track_caller]
fn nothing_failed(standalone: &mut Standalone) {
    let (now, said) = (service(standalone, "a"), standalone.said());
    assert_eq!(now.template_failures, 0, "{said}");
    assert!(now.throttled_until.is_none(), "{said}");
    for failure in [
        "rogue",
        "exit status",
        "killed by",
        "throttl",
        "not loaded",
        "was lost",
    ] {
        assert!(!said.contains(failure), "{said}");
    }
}

#[test]
fn a_template_and_its_children_stay_and_it_forks_others_afterwards() {
    for settings in ["", ORDERED] {
        let mut standalone = python(4, settings);
        let address = address(&standalone);
        let template = template(&standalone);
        let mut client = Client::connect(&address);
        let child: i32 = client.line().parse().expect("a process");
        let was = until(SOON, "a busy child", || {
            let now = service(&standalone, "a");
            let idle = now.templates[0].state == TemplateState::Ready;
            (now.busy == 1 && now.total == now.templates[0].forked && idle).then_some(now)
        });
        upgrade(&standalone);
        let is = service(&standalone, "a");
        assert_eq!(is.templates.len(), 1);
        assert_eq!(is.templates[0].pid, was.templates[0].pid);
        assert_eq!(is.templates[0].state, was.templates[0].state);
        assert_eq!(is.templates[0].forked, was.templates[0].forked);
        assert!(is.templates[0].age >= was.templates[0].age);
        assert_eq!((is.started, is.ended), (was.started, was.ended));
        // Its client is served to the end, and the child takes others.
        client.say("still here");
        assert_eq!(client.line(), "still here");
        drop(client);
        until(SOON, "the end of the client", || {
            service(&standalone, "a").busy == 0
        });
        // The next child is the template's.
        Process(child).signal(Signal::SIGKILL);
        until(SOON, "its end", || service(&standalone, "a").killed == 1);
        let next = talk(&address).expect("a child");
        assert_ne!(next, child);
        let next = Process(next);
        assert_eq!(next.parent(), standalone.process().0);
        assert_eq!(next.cmdline(), template.cmdline());
        assert!(template.runs());
    }
}

#[test]
fn a_template_that_ends_afterwards_is_missed_and_a_stop_ends_all() {
    let mut standalone = python(4, ORDERED);
    let first = template(&standalone);
    wait_for_children(&standalone, 4);
    upgrade(&standalone);
    upgrade(&standalone);
    first.signal(Signal::SIGKILL);
    standalone.wait_for_line(&format!("pid {} killed by signal 9", first.0));
    until(SOON, "another one", || {
        let templates = service(&standalone, "a").templates;
        templates.first().is_some_and(|other| other.pid != first.0)
    });
    assert!(talk(&address(&standalone)).is_some());
    let all = standalone.process().children();
    standalone.stop_by(Signal::SIGTERM);
    until(SOON, "their ends", || {
        !all.iter().any(|process| process.runs())
    });
}

/// A service whose template waits at steps, and the directory that says at which.
fn stepwise(most: u32, held: &str, settings: &str) -> (Standalone, PathBuf) {
    let standalone = Standalone::of_a_user();
    let program = standalone.install(&file("tests/programs/stepwise-template.py"));
    let example = standalone.install(&file(EXAMPLE));
    let steps = standalone.path().join("steps");
    fs::create_dir(&steps).expect("a directory");
    fs::set_permissions(&steps, fs::Permissions::from_mode(0o777)).expect("a mode");
    let command = [&program, &example, &steps].map(|path| path.display().to_string());
    if !held.is_empty() {
        hold(&steps, held);
    }
    (
        preloaded(standalone, most, &command.join(" "), settings),
        steps,
    )
}

fn hold(steps: &Path, step: &str) {
    let _ = fs::remove_file(steps.join(format!("at-{step}")));
    fs::write(steps.join(format!("hold-{step}")), "").expect("a file");
}

#[track_caller]
fn wait_until_at(steps: &Path, step: &str) {
    let at = steps.join(format!("at-{step}"));
    until(SOON, format_args!("the step {step}"), || at.exists());
}

fn release(steps: &Path, step: &str) {
    fs::remove_file(steps.join(format!("hold-{step}"))).expect("a file");
}

#[test]
fn an_upgrade_at_any_step_of_a_fork_disturbs_neither_template_nor_child() {
    for settings in ["", "accept = \"ordered\"\nmin_children = 1\nmax_idle = 1\n"] {
        for step in ["fork", "hello", "ready", "answer"] {
            let (mut standalone, steps) = stepwise(1, step, settings);
            let mut client = Client::connect(&address(&standalone));
            wait_until_at(&steps, step);
            let before = templates(&standalone, &[TemplateState::Forking]);
            upgrade(&standalone);
            let after = service(&standalone, "a").templates;
            assert_eq!(
                (after[0].pid, after[0].state),
                (before[0].pid, before[0].state),
                "{step}"
            );
            release(&steps, step);
            assert!(client.line().parse::<i32>().is_ok(), "{step}");
            upgrade(&standalone);
            client.say("on");
            assert_eq!(client.line(), "on", "{step}");
            let now = until(SOON, "the child", || {
                Some(service(&standalone, "a")).filter(|now| now.started > 0)
            });
            assert_eq!((now.started, now.ended), (1, 0), "{step}");
            assert_eq!(now.templates[0].forked, 1, "{step}");
            nothing_failed(&mut standalone);
        }
    }
}

#[test]
fn an_order_that_a_template_has_not_read_yet_is_carried_out_once() {
    let mut standalone = python(1, "");
    let template = template(&standalone);
    template.signal(Signal::SIGSTOP);
    let address = address(&standalone);
    let mut client = Client::connect(&address);
    until(SOON, "an order", || {
        service(&standalone, "a").templates[0].state == TemplateState::Forking
    });
    upgrade(&standalone);
    upgrade(&standalone);
    template.signal(Signal::SIGCONT);
    assert!(client.line().parse::<i32>().is_ok());
    client.say("hello");
    assert_eq!(client.line(), "hello");
    until(SOON, "an idle child", || {
        service(&standalone, "a").available == 1
    });
    assert_eq!(service(&standalone, "a").started, 1);
    nothing_failed(&mut standalone);
}

#[test]
fn a_template_that_loads_goes_on_loading_and_then_forks_what_was_asked_for() {
    for settings in ["", ORDERED] {
        let (mut standalone, steps) = stepwise(4, "load", settings);
        wait_until_at(&steps, "load");
        let mut client = Client::connect(&address(&standalone));
        let before = templates(&standalone, &[TemplateState::Loading]);
        upgrade(&standalone);
        upgrade(&standalone);
        release(&steps, "load");
        assert!(client.line().parse::<i32>().is_ok());
        assert_eq!(template(&standalone).0, before[0].pid);
        nothing_failed(&mut standalone);
    }
}

#[test]
fn a_replacement_that_loads_goes_on_and_then_replaces_the_template() {
    let (mut standalone, steps) = stepwise(4, "", "preload_max_uses = 1\n");
    let old = template(&standalone);
    hold(&steps, "load");
    let address = address(&standalone);
    assert!(talk(&address).is_some());
    wait_until_at(&steps, "load");
    let pids = || -> Vec<_> {
        let templates = service(&standalone, "a").templates;
        templates.iter().map(|template| template.pid).collect()
    };
    let both = [TemplateState::Ready, TemplateState::Loading];
    let before: Vec<_> = templates(&standalone, &both)
        .iter()
        .map(|t| t.pid)
        .collect();
    assert_eq!(before[0], old.0);
    upgrade(&standalone);
    assert_eq!(pids(), before);
    assert!(talk(&address).is_some());
    release(&steps, "load");
    until(SOON, "one template", || pids() == before[1..]);
    assert!(!old.runs());
    assert!(talk(&address).is_some());
    let line = format!("pid {} is the new one: pid {} was", before[1], before[0]);
    standalone.wait_for_line(&line);
    nothing_failed(&mut standalone);
}

#[test]
fn a_reload_that_loads_a_template_begins_anew_with_another() {
    let (mut standalone, steps) = stepwise(4, "", ORDERED);
    let old = template(&standalone);
    wait_for_children(&standalone, 4);
    hold(&steps, "load");
    standalone.process().signal(Signal::SIGHUP);
    wait_until_at(&steps, "load");
    let both = templates(&standalone, &[TemplateState::Ready, TemplateState::Loading]);
    let cancelled = Process(both[1].pid);
    let mark = standalone.said().len();
    upgrade(&standalone);
    until(SOON, "the end of the first one", || !cancelled.runs());
    assert!(old.runs());
    assert!(talk(&address(&standalone)).is_some());
    release(&steps, "load");
    until(SOON, "the end of the reload", || {
        standalone.said()[mark..].contains("reload done")
    });
    let new = template(&standalone);
    assert!(new != old && new != cancelled);
    until(SOON, "the end of the old one", || !old.runs());
    wait_for_children(&standalone, 4);
    nothing_failed(&mut standalone);
}

#[test]
fn a_template_that_is_leaving_is_reaped_and_one_that_does_not_leave_is_killed() {
    let standalone = Standalone::of_a_user();
    let stubborn = "trap '' TERM\necho ready >&5\nwhile :; do sleep 1; done";
    let command = standalone
        .script("stubborn", stubborn)
        .display()
        .to_string();
    let mut standalone = preloaded(standalone, 4, &command, "");
    let old = template(&standalone);
    standalone.reload();
    upgrade(&standalone);
    assert!(old.runs());
    until(SOON, "its end", || !old.runs());
    let new = template(&standalone);
    nothing_failed(&mut standalone);
    // It ignores the end of its master, too.
    drop(standalone);
    new.signal(Signal::SIGKILL);
}

#[test]
fn a_service_that_was_preloaded_is_so_no_longer_after_a_reload() {
    let mut standalone = python(4, ORDERED);
    let template = template(&standalone);
    wait_for_children(&standalone, 4);
    upgrade(&standalone);
    let ordered = standalone.install(&file("services/examples/ordered.py"));
    standalone.write_table(&format!("a unix n n n - 4 {}\n", ordered.display()));
    standalone.write_toml(&format!("[service.\"a/unix\"]\n{ORDERED}"));
    let said = standalone.reload();
    assert!(said.contains("reload done"), "{said}");
    upgrade(&standalone);
    until(SOON, "the template's end", || !template.runs());
    assert!(talk(&address(&standalone)).is_some());
}

#[test]
fn no_client_of_an_ordered_preloaded_pool_is_lost_by_twenty_upgrades() {
    let rust = {
        let standalone = Standalone::of_a_user();
        let program = standalone.install(&programs::service("preload"));
        let command = format!("{} -o max_use=1000000 ordered", program.display());
        preloaded(standalone, 4, &command, ORDERED)
    };
    for mut standalone in [python(4, ORDERED), rust] {
        let first = template(&standalone);
        wait_for_children(&standalone, 4);
        let address = address(&standalone);
        let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        assert!(talk(&address).is_some());
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..20 {
                let before = served.load(Ordering::Relaxed);
                upgrade(&standalone);
                until(SOON, "clients in between", || {
                    served.load(Ordering::Relaxed) > before + 20
                });
            }
            over.store(true, Ordering::Relaxed);
        });
        wait_for_children(&standalone, 4);
        let served = served.load(Ordering::Relaxed) as u64;
        until(SOON, "all clients to be counted", || {
            service(&standalone, "a").connections == served
        });
        let now = service(&standalone, "a");
        assert_eq!((now.started, now.ended), (4, 0));
        assert_eq!(template(&standalone), first);
        assert_eq!(read_document(&standalone).upgrades, 20);
        nothing_failed(&mut standalone);
    }
}
