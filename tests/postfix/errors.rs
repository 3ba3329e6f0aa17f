//! Error messages for users: what is wrong, and where.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use testkit::client::{Client, expect_greeting};
use testkit::instance::{Instance, SOON};
use testkit::layout::replace;
use testkit::run::{Running, run};
use testkit::{is_original, needs_root, ours_promises, test};

/// Asserts that a master does not start, and that standard error or its log contains all of these
/// texts.
#[track_caller]
fn expect_no_start(postfix: Instance, texts: &[&str]) {
    let texts = texts.iter().copied().map(str::to_owned).collect();
    expect_no_starts(vec![(postfix, texts)]);
}

/// The same for several masters in parallel, because the original delays its exit.
#[track_caller]
fn expect_no_starts(cases: Vec<(Instance, Vec<String>)>) {
    let running: Vec<_> = cases
        .into_iter()
        .map(|(mut postfix, texts)| {
            let early = EarlyLog::of(&mut postfix);
            let master = Running::start(&mut postfix.master(&["-w"]));
            (master, early, postfix, texts)
        })
        .collect();
    for (master, early, postfix, texts) in running {
        let finished = master.finish(SOON).expect_failure();
        assert!(finished.status.code().is_some(), "killed: {finished:?}");
        let said = finished.stderr + &early.text() + &postfix.log();
        expect_said(&said, &texts);
    }
}

/// The log of a master that has not read its configuration yet; postfix(1) sets it.
struct EarlyLog(UnixDatagram);

impl EarlyLog {
    fn of(postfix: &mut Instance) -> Self {
        let path = postfix.path().join("early");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        postfix
            .environment("POSTLOG_SERVICE", path.display())
            .environment("POSTLOG_HOSTNAME", "host.test");
        Self(socket)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut record = [0; 4096];
        while let Ok(length) = self.0.recv(&mut record) {
            text += &String::from_utf8_lossy(&record[..length]);
            text.push('\n');
        }
        text
    }
}

#[track_caller]
fn expect_said(said: &str, texts: &[impl AsRef<str>]) {
    assert!(said.contains("fatal:") || said.contains("error:"), "{said}");
    for text in texts {
        let text = text.as_ref();
        assert!(said.contains(text), "{text:?} is not said: {said}");
    }
}

#[test]
fn only_root_may_start_it() {
    needs_root("to become another user");
    let postfix = Instance::new();
    postfix.write_configuration();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(postfix.daemons().join("master"))
        .arg("-c")
        .arg(postfix.configuration());
    let mark = postfix.log().len();
    let finished = run(&mut command, SOON).expect_failure();
    if !is_original() {
        let said = finished.stderr + &postfix.log()[mark..];
        assert!(
            said.contains("root") || said.contains("superuser"),
            "{said}"
        );
    }
}

#[test]
fn a_second_master_of_the_same_queue_is_told_of_the_first() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    postfix.start();
    let master = postfix.master_process();
    let early = EarlyLog::of(&mut postfix);
    let second = run(&mut postfix.master(&["-w"]), SOON).expect_failure();
    let said = second.stderr + &early.text() + &postfix.log();
    expect_said(&said, &["pid/master.pid"]);
    if ours_promises("the first master's process id is said") {
        expect_said(&said, &[master.0.to_string()]);
    }
    // The first master is not affected.
    assert_eq!(postfix.master_process(), master);
    expect_greeting(&postfix.address());
}

#[test]
fn a_second_master_of_the_same_data_directory_is_told_of_the_lock() {
    needs_root("to run a mail system");
    let mut first = Instance::new();
    first.start();
    let mut second = Instance::new();
    let data = first.data().display().to_string();
    second.set("data_directory", &data);
    second.write_configuration();
    expect_no_start(second, &[&format!("{data}/master.lock")]);
    assert!(first.master_process().runs(), "the first");
}

#[test]
fn a_missing_configuration_directory_is_named() {
    needs_root("to start a master");
    let postfix = Instance::new();
    fs::remove_dir(postfix.configuration()).expect("an empty directory");
    let path = postfix.configuration().display().to_string();
    expect_no_start(postfix, &[&path]);
}

#[test]
fn a_missing_service_table_is_named() {
    needs_root("to start a master");
    let postfix = Instance::new();
    postfix.write_main_cf();
    let path = postfix.master_cf().display().to_string();
    expect_no_start(postfix, &[&path]);
}

#[test]
fn w_says_the_reason_before_it_gives_up() {
    needs_root("to start a master");
    // Several in parallel, because the error occurs only sometimes.
    let running: Vec<_> = (0..10)
        .map(|_| {
            let mut postfix = Instance::new();
            postfix.write_main_cf();
            let early = EarlyLog::of(&mut postfix);
            let master = Running::start(&mut postfix.master(&["-w"]));
            (master, early, postfix)
        })
        .collect();
    for (master, early, postfix) in running {
        let finished = master.finish(SOON).expect_failure();
        let reason = postfix.master_cf().display().to_string();
        let said = [finished.stderr, early.text()];
        assert!(said.iter().any(|text| text.contains(&reason)), "{said:?}");
        // The original writes both only to its log.
        for text in said {
            let position = |what: &str| text.lines().position(|line| line.contains(what));
            if let Some(end) = position("daemon initialization failure") {
                let reason = position(&reason);
                assert!(reason.is_some_and(|reason| reason < end), "{text}");
            }
        }
    }
}

#[test]
fn an_error_in_the_service_table_is_named_with_its_line() {
    needs_root("to start a master");
    let cases = [
        ("broken", "type"),
        ("a teapot n n n - - puppet", "teapot"),
        ("a unix maybe n n - - puppet", "maybe"),
        ("a unix n n n often - puppet", "often"),
        ("a unix n n n - few puppet", "few"),
        ("a unix n n n - - puppet { -o", "{"),
    ];
    let cases = cases.map(|(line, wrong)| {
        let postfix = Instance::new();
        postfix.write_main_cf();
        let table = postfix.master_cf();
        replace(&table, &format!("\n# comment\n{line}\n"));
        let texts = [&table.display().to_string(), "line 3", wrong].map(str::to_owned);
        (postfix, texts.to_vec())
    });
    expect_no_starts(cases.into());
}

#[test]
fn an_error_in_main_cf_is_named_with_its_line() {
    needs_root("to start a master");
    let postfix = Instance::new();
    postfix.write_configuration();
    let text = fs::read_to_string(postfix.main_cf()).expect("main.cf");
    replace(&postfix.main_cf(), &format!("soft_bounce\n{text}"));
    let path = postfix.main_cf().display().to_string();
    expect_no_start(postfix, &[&path, "line 1", "soft_bounce"]);
}

#[test]
fn a_bad_parameter_value_is_named_with_its_parameter() {
    needs_root("to start a master");
    let cases = [
        ("default_process_limit", "many"),
        ("service_throttle_time", "0"),
        ("inet_protocols", "ipv5"),
        ("inet_interfaces", "no-such-host.invalid"),
        ("maillog_file", "/nowhere/maillog"),
    ]
    .map(|(name, value)| {
        let mut postfix = Instance::new();
        postfix.set(name, value);
        postfix.write_configuration();
        (postfix, vec![name.to_owned(), value.to_owned()])
    });
    expect_no_starts(cases.into());
}

#[test]
fn an_unknown_mail_owner_is_named() {
    needs_root("to start a master");
    let mut postfix = Instance::new();
    postfix.set("mail_owner", "no-such-user");
    postfix.write_configuration();
    expect_no_start(postfix, &["mail_owner", "no-such-user"]);
}

#[test]
fn a_missing_queue_directory_is_named() {
    needs_root("to start a master");
    let mut postfix = Instance::new();
    let path = postfix.path().join("no-such-queue").display().to_string();
    postfix.set("queue_directory", &path);
    postfix.write_configuration();
    expect_no_start(postfix, &[&path]);
}

#[test]
fn a_data_directory_of_somebody_else_is_named() {
    needs_root("to start a master");
    let postfix = Instance::new();
    postfix.write_configuration();
    let data = postfix.data();
    chown(&data, Some(0), Some(0)).expect("root's directory");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("a mode");
    let lock = data.join("master.lock").display().to_string();
    expect_no_start(postfix, &[&lock, "Permission denied"]);
}

#[test]
fn a_port_that_somebody_else_holds_is_named() {
    needs_root("to start a master");
    let other = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = other.local_addr().expect("an address").to_string();
    let mut postfix = Instance::mail();
    postfix.service(&format!("{address} inet n - n - - smtpd"));
    postfix.write_configuration();
    let port = address.rsplit_once(':').expect("a port").1;
    expect_no_start(postfix, &["127.0.0.1", port, "Address already in use"]);
}

#[test]
fn an_unknown_port_name_is_named() {
    needs_root("to start a master");
    let mut postfix = Instance::new();
    postfix.service("127.0.0.1:no-such-port inet n - n - - smtpd");
    postfix.write_configuration();
    expect_no_start(postfix, &["no-such-port"]);
}

#[test]
fn a_missing_command_is_named_and_its_service_throttled() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    let service = postfix.socket("private", "ghost");
    postfix.service("ghost unix - - n - - no-such-command");
    postfix.start();
    drop(std::os::unix::net::UnixStream::connect(service).expect("a listener"));
    let path = postfix
        .daemons()
        .join("no-such-command")
        .display()
        .to_string();
    postfix.wait_for_log(&format!("{path}: bad command startup -- throttling"));
    let line = postfix.wait_for_log(&format!("exec {path}"));
    assert!(line.contains("No such file or directory"), "{line}");
    // The other services work.
    let mut client = Client::connect(&postfix.address());
    assert!(client.line().starts_with("220 "));
}

#[test]
fn a_command_that_may_not_be_run_is_named() {
    needs_root("to run a mail system");
    let mut postfix = Instance::mail();
    let service = postfix.socket("private", "ghost");
    let path = postfix.daemons().join("text");
    fs::write(&path, "not a program\n").expect("a file");
    postfix.service("ghost unix - - n - - text");
    postfix.start();
    drop(std::os::unix::net::UnixStream::connect(service).expect("a listener"));
    let path = path.display().to_string();
    let line = postfix.wait_for_log(&format!("exec {path}"));
    assert!(line.contains("Permission denied"), "{line}");
    postfix.wait_for_log(&format!("{path}: bad command startup -- throttling"));
}
