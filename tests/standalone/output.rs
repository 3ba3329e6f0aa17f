//! Children's output, and the format of the log.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::signal::Signal;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::standalone::Standalone;
use testkit::test;

/// A master with one service that runs these commands at a wake-up at once, with these settings.
fn standalone(commands: &str, settings: &str) -> Standalone {
    let mut standalone = Standalone::of_a_user();
    let script = standalone.script("talker", commands);
    let line = format!("talker fifo n - - 1000 1 {}\n", script.display());
    set(&standalone, settings);
    standalone.write_table(&line);
    standalone
}

/// Writes `master.toml` with the test's own directories.
fn set(standalone: &Standalone, settings: &str) {
    let (queue, data) = (standalone.queue(), standalone.path().join("data"));
    let (queue, data) = (queue.display(), data.display());
    standalone.write_toml(&format!(
        "queue_directory = \"{queue}\"\ndata_directory = \"{data}\"\n{settings}"
    ));
}

fn captured(settings: &str) -> String {
    format!("{settings}[service.\"talker/fifo\"]\ncapture_output = true\n")
}

/// The process ID of the only child.
#[track_caller]
fn child(standalone: &mut Standalone) -> i32 {
    let master = standalone.process();
    until(SOON, "a child", || master.children().first().map(|c| c.0))
}

#[test]
fn what_a_child_prints_is_logged_line_by_line_with_its_service_and_pid() {
    let mut standalone = standalone(
        "echo first; echo second >&2; printf 'a\\tb\\033[31m\\r\\n\\n'; printf last; exec sleep 1000",
        &captured(""),
    );
    standalone.start();
    let pid = child(&mut standalone);
    for text in ["first", "second", "a?b?[31m"] {
        standalone.wait_for_line(&format!("master: talker/{pid}: {text}\n"));
    }
    // A last line without a newline is logged when the child has ended.
    assert!(!standalone.said().contains(": last"));
    Process(pid).signal(Signal::SIGKILL);
    standalone.wait_for_line(&format!("master: talker/{pid}: last\n"));
    standalone.wait_for_line("killed by signal 9");
    let said = standalone.said();
    let (last, end) = (said.find(": last"), said.find("killed by signal 9"));
    assert!(last < end, "its last words, and then its end: {said}");
}

#[test]
fn what_a_child_prints_goes_to_the_terminal_unless_a_service_says_otherwise() {
    let mut standalone = standalone("echo plain >&2; exec sleep 1000", "");
    standalone.start();
    standalone.wait_for_line("plain\n");
    assert!(
        !standalone.said().contains(": plain"),
        "{}",
        standalone.said()
    );
}

#[test]
fn a_long_line_is_several() {
    let mut standalone = standalone("printf '%02500d\\n' 7; exec sleep 1000", &captured(""));
    standalone.start();
    let pid = child(&mut standalone);
    let piece = format!("talker/{pid}: {}\n", "0".repeat(1000));
    standalone.wait_for_line(&format!("talker/{pid}: {}7\n", "0".repeat(499)));
    assert_eq!(standalone.said().matches(&piece).count(), 2);
}

#[test]
fn a_child_that_floods_is_cut_short_and_others_are_served() {
    let mut standalone = standalone("exec yes flooding", &captured(""));
    let other = standalone.script("other", "exec sleep 1000");
    let table = fs::read_to_string(standalone.table()).unwrap();
    standalone.write_table(&format!(
        "{table}other unix n - - 0 0 {}\n",
        other.display()
    ));
    standalone.start();
    let pid = child(&mut standalone);
    let lines = |standalone: &mut Standalone| standalone.said().matches(": flooding\n").count();
    until(SOON, "the first hundred lines", || {
        lines(&mut standalone) >= 100
    });
    standalone.wait_for_line("lines of output were not logged");
    // In the meantime, clients of another service get children.
    let mark = standalone.process().children().len();
    let socket = standalone.queue().join("public/other");
    let _client = UnixStream::connect(&socket).expect("a connection");
    let master = standalone.process();
    until(SOON, "another child", || master.children().len() > mark);
    // The flood fills neither the log nor the master's time.
    let busy = master.busy();
    let before = lines(&mut standalone);
    until(SOON, "two seconds of lines", || {
        lines(&mut standalone) >= before + 200
    });
    let busy = master.busy() - busy;
    assert!(busy.as_secs_f64() < 1.0, "{busy:?} of the processor");
    assert!(Process(pid).runs());
}

#[test]
fn a_childs_output_is_closed_with_its_end() {
    let mut standalone = standalone("echo here; exit 0", &captured(""));
    let table = fs::read_to_string(standalone.table()).unwrap();
    standalone.write_table(&table.replace(" 1000 1 ", " 1 1 "));
    standalone.start();
    let master = standalone.process();
    let sockets = || {
        let all = master.descriptors().into_values();
        all.filter(|one| one.target.starts_with("socket:")).count()
    };
    standalone.wait_for_line(": here\n");
    let first = sockets();
    until(SOON, "five children, one after the other", || {
        standalone.said().matches(": here\n").count() >= 5
    });
    // The status channel and the output of a child that lives.
    until(SOON, "no socket of a child that has ended", || {
        sockets() <= first.max(2) && master.children().len() <= 1
    });
}

/// Without the fix, these lines are lost.
#[test]
fn what_a_child_prints_while_the_master_waits_for_its_end_is_logged() {
    let ends_late = "trap 'for i in 1 2 3 4 5; do echo bye $i; sleep 0.1; done; exit' TERM; \
                     echo here; while :; do sleep 0.1; done";
    let settings = format!("{}stop_timeout = \"1s\"\n", captured(""));
    let mut standalone = standalone(ends_late, &settings);
    standalone.start();
    standalone.wait_for_line(": here\n");
    let said = standalone.stop_by(Signal::SIGTERM).stderr;
    for i in 1..=5 {
        assert!(said.contains(&format!(": bye {i}\n")), "{i}: {said}");
    }
}

/// Without the fix, the rest is lost, and the master spins until the child has ended.
#[test]
fn what_a_child_of_a_removed_service_prints_is_logged_until_its_end() {
    let ends_late = "trap '' TERM; while :; do echo here; sleep 0.1; done";
    let mut standalone = standalone(ends_late, &captured(""));
    standalone.start();
    let pid = child(&mut standalone);
    standalone.wait_for_line(": here\n");
    let other = standalone.script("other", "exec sleep 1000");
    standalone.write_table(&format!("other unix n - - 0 0 {}\n", other.display()));
    set(&standalone, "");
    standalone.reload();
    standalone.wait_for_line("1 removed");
    let lines = |standalone: &mut Standalone| standalone.said().matches(": here\n").count();
    let before = lines(&mut standalone);
    let master = standalone.process();
    let busy = master.busy();
    until(SOON, "ten more lines", || {
        lines(&mut standalone) >= before + 10
    });
    let busy = master.busy() - busy;
    assert!(busy.as_secs_f64() < 0.5, "{busy:?} of the processor");
    Process(pid).signal(Signal::SIGKILL);
    until(SOON, "its end", || !Process(pid).runs());
}

#[test]
fn a_reload_turns_the_capture_on_for_new_children() {
    let mut standalone = standalone("echo here >&2; exec sleep 1000", "");
    standalone.start();
    standalone.wait_for_line("here\n");
    set(&standalone, &captured(""));
    let old = child(&mut standalone);
    standalone.reload();
    Process(old).signal(Signal::SIGTERM);
    // The old child's last words are warnings.
    standalone.wait_for_line("master: talker/");
}

#[test]
fn the_log_can_be_objects() {
    let file = |standalone: &Standalone| standalone.path().join("maillog");
    let mut standalone = standalone("echo 'a \"b\"'; exec sleep 1000", "");
    let path = file(&standalone).display().to_string();
    set(
        &standalone,
        &captured(&format!(
            "maillog_file = \"{path}\"\nmaillog_file_prefixes = \"/\"\nlog_format = \"json\"\n"
        )),
    );
    standalone.start();
    let pid = child(&mut standalone);
    let fields = format!(
        "\"severity\":\"info\",\"tag\":\"master/master\",\"pid\":{},\
         \"message\":\"talker/{pid}: a \\\"b\\\"\",\"service\":\"talker\",\"type\":\"fifo\",\
         \"child\":{pid}}}\n",
        standalone.process().0
    );
    standalone.wait_for_line(&fields);
    let in_file = || fs::read_to_string(Path::new(&path)).is_ok_and(|text| text.contains(&fields));
    until(SOON, "the same in the file", in_file);
    for line in fs::read_to_string(&path).unwrap().lines() {
        let whole = line.starts_with("{\"time\":\"20") && line.ends_with('}');
        assert!(whole, "{line}");
    }
}
