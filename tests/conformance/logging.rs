//! The destinations and the format of log lines.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use testkit::differs::{Observed, differs};
use testkit::instance::{Instance, SOON};
use testkit::poll::{until, within};
use testkit::puppet_service::PuppetService;
use testkit::run::run;
use testkit::{is_original, needs_root, skip, test};

/// A socket that receives log lines.
pub struct Reader(UnixDatagram);

impl Reader {
    fn bind(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_nonblocking(true).expect("non-blocking");
        Self(socket)
    }

    /// Waits for a record that contains a text.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        until(SOON, format_args!("{text:?}"), || {
            let mut record = [0; 4096];
            let length = self.0.recv(&mut record).ok()?;
            let record = String::from_utf8_lossy(&record[..length]).into_owned();
            record.contains(text).then_some(record)
        })
    }
}

/// Starts a master in the foreground that logs to the test's own syslog: /dev/log in a mount
/// namespace whose /dev contains nothing else but what the master needs.
pub fn start_with_syslog(postfix: &mut Instance) -> Reader {
    let dev = postfix.path().join("dev");
    fs::create_dir(&dev).expect("a directory");
    fs::write(dev.join("null"), "").expect("a mount point");
    let reader = Reader::bind(&dev.join("log"));
    postfix.set("maillog_file", "");
    postfix.write_configuration();
    let script = format!(
        "mount --bind /dev/null {0}/null && mount --rbind {0} /dev && exec \"$@\"",
        dev.display()
    );
    let options = ["--mount", "sh", "-c", &script, "sh"];
    let mut command = postfix.under(Path::new("unshare"), &options);
    postfix.run_unseen(&mut command);
    reader
}

/// The text after `Mmm dd hh:mm:ss `.
#[track_caller]
fn after_time(line: &str) -> &str {
    let (time, rest) = line.split_at(16);
    let shape: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert!(shape.ends_with(" 00:00:00 "), "{line}");
    rest
}

/// "Tag `syslog_name/master[pid]`, facility mail"
#[test]
fn the_systems_log_gets_lines_of_facility_mail() {
    needs_root("to make a mount namespace");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    let reader = start_with_syslog(&mut postfix);
    let pid = postfix.foreground().pid();
    let line = reader.wait_for("daemon started -- version ");
    let line = line.strip_prefix("<22>").expect("mail.info");
    let begin = format!("postfix/master[{pid}]: daemon started -- version ");
    assert!(after_time(line).starts_with(&begin), "{line}");

    let _client = service.connect();
    service.next().exit(3);
    let line = reader.wait_for("exit status 3");
    let line = line.strip_prefix("<20>").expect("mail.warning");
    let begin = format!("postfix/master[{pid}]: warning: process ");
    assert!(after_time(line).starts_with(&begin), "{line}");
}

/// "syslog_facility, syslog_name"
#[test]
fn the_facility_and_the_name_can_be_changed() {
    needs_root("to make a mount namespace");
    let mut postfix = Instance::bare();
    postfix.set("syslog_facility", "local3");
    postfix.set("syslog_name", "tested");
    let reader = start_with_syslog(&mut postfix);
    let line = reader.wait_for("daemon started -- version ");
    let line = line.strip_prefix("<158>").expect("local3.info");
    assert!(after_time(line).starts_with("tested/master["), "{line}");
}

/// "multi_instance_name": the default of syslog_name.
#[test]
fn an_instances_name_is_its_tag() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.set("multi_instance_name", "postfix-second");
    postfix.start();
    let line = postfix.wait_for_log("daemon started -- version ");
    assert!(line.contains(" postfix-second/master["), "{line}");
}

/// "maillog_file: [...] the file itself when nobody listens there"
#[test]
fn without_postlogd_lines_go_to_the_file_itself() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.start();
    let line = postfix.wait_for_log("daemon started -- version ");
    let pid = postfix.master_pid();
    let begin = format!("host postfix/master[{pid}]: daemon started -- version ");
    assert!(after_time(&line).starts_with(&begin), "{line}");
    assert!(line.ends_with(&format!(
        ", configuration {}",
        postfix.configuration().display()
    )));
}

/// "The master writes into that file itself before the start"
#[test]
fn what_keeps_the_master_from_listening_is_in_the_log_file() {
    needs_root("to start a master");
    differs(
        "What keeps the master from listening at its start is in the log file that main.cf names.",
        Observed {
            ours: "it is there",
            original: "it is not there",
        },
        |postfix| {
            // An address that this machine does not have.
            let name = "192.0.2.1:7";
            postfix.service(&format!("{name} inet n - n - - puppet"));
            postfix.write_configuration();
            run(&mut postfix.master(&["-w"]), SOON).expect_failure();
            if postfix.log().contains("192.0.2.1") {
                "it is there"
            } else {
                "it is not there"
            }
        },
    );
}

#[test]
fn a_faulty_table_at_the_start_is_told_in_the_log_file() {
    needs_root("to start a master");
    differs(
        "What is wrong in the service table at the start is in the log file that main.cf names.",
        Observed {
            ours: "it is there",
            original: "it is not there",
        },
        |postfix| {
            postfix.service("a tcp - - n - - true");
            postfix.write_configuration();
            run(&mut postfix.master(&["-w"]), SOON).expect_failure();
            if postfix.log().contains("bad transport type: tcp") {
                "it is there"
            } else {
                "it is not there"
            }
        },
    );
}

/// "maillog_file: a datagram with the finished line to `public/postlog`"
#[test]
fn with_postlogd_lines_go_to_its_socket() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    // A reader that is not a child of the master.
    let reader = Reader::bind(&postfix.socket("public", "postlog"));
    let mark = postfix.log().len();
    let _client = service.connect();
    service.next().exit(3);
    let line = reader.wait_for("exit status 3");
    let pid = postfix.master_pid();
    let begin = format!("host postfix/master[{pid}]: warning: process ");
    assert!(after_time(&line).starts_with(&begin), "{line}");
    assert_eq!(postfix.log().split_off(mark), "");
}

/// "the file itself when nobody listens there": also when the reader ends later.
#[test]
fn a_line_that_postlogd_does_not_take_is_not_lost() {
    needs_root("to run a master");
    differs(
        "Lines are not lost while postlogd is away.",
        Observed {
            ours: "they are in the file",
            original: "the first of them is lost",
        },
        |postfix| {
            postfix.start();
            let socket = postfix.socket("public", "postlog");
            let reader = Reader::bind(&socket);
            postfix.hang_up();
            reader.wait_for("reload -- version ");
            // At the end of a reload, the original tries the reader again.
            let master = postfix.master_process();
            until(SOON, "the reload's end", || master.is_idle());
            drop(reader);
            // A process that another test is starting may still have a copy of the socket.
            let gone = || UnixDatagram::unbound()?.connect(&socket);
            until(SOON, "no process to listen", || gone().is_err());
            let written = || postfix.log().contains("reload -- version ");
            postfix.hang_up();
            match within(SOON / 10, written) {
                Some(()) => "they are in the file",
                None => "the first of them is lost",
            }
        },
    );
}

/// "the log never blocks": a socket that is full does not stop the master.
#[test]
fn a_reader_that_does_not_read_does_not_stop_the_master() {
    needs_root("to run a master");
    differs(
        "A log that is not read does not stop the master.",
        Observed {
            ours: "clients are served",
            original: "no client is served any more",
        },
        |postfix| {
            let service = PuppetService::add(postfix, "a", "unix - - n - -");
            postfix.start();
            let _reader = Reader::bind(&postfix.socket("public", "postlog"));
            let master = postfix.master_process();
            // Each of them causes a log line.
            for _ in 0..3000 {
                postfix.hang_up();
                until(SOON, "it", || master.is_idle() || master.sleeps());
            }
            let _client = service.connect();
            if service.starts_a_child() {
                "clients are served"
            } else {
                "no client is served any more"
            }
        },
    );
}

/// "maillog_file_permissions (0600): the mode of a log file that has to be made"
#[test]
fn a_new_log_file_has_maillog_file_permissions() {
    needs_root("to run a master");
    if is_original() && !is_known("maillog_file_permissions") {
        skip("Postfix knows maillog_file_permissions from 3.9 on");
    }
    let mut postfix = Instance::bare();
    postfix.set("maillog_file_permissions", "0644");
    postfix.start();
    postfix.wait_for_log("daemon started");
    let facts = fs::metadata(postfix.path().join("log/maillog")).expect("a log");
    assert_eq!(facts.mode() & 0o777, 0o644);
}

/// Whether the installed Postfix has this parameter.
fn is_known(parameter: &str) -> bool {
    let mut postconf = Command::new("postconf");
    let told = run(postconf.args(["-d", parameter]), SOON);
    told.stdout.starts_with(parameter)
}

/// "maillog_file_permissions"
#[test]
fn a_new_log_file_is_for_root_alone() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.start();
    postfix.wait_for_log("daemon started");
    let facts = fs::metadata(postfix.path().join("log/maillog")).expect("a log");
    assert_eq!(facts.mode() & 0o777, 0o600);
}

/// "maillog_file_prefixes": a log file elsewhere is an error.
#[test]
fn a_log_file_outside_the_prefixes_is_refused() {
    needs_root("to start a master");
    let mut postfix = Instance::bare();
    postfix.set("maillog_file_prefixes", "/var, /dev/stdout");
    postfix.write_configuration();
    run(&mut postfix.master(&["-w"]), SOON).expect_failure();
    assert_eq!(postfix.log(), "");
}

/// "syslog_name": of the configuration that is in force.
#[test]
fn a_reload_replaces_syslog_name() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    let service = PuppetService::add(&mut postfix, "a", "unix - - n - -");
    postfix.start();
    postfix.set("syslog_name", "renamed");
    postfix.reload();
    let _client = service.connect();
    service.next().exit(3);
    let line = postfix.wait_for_log("exit status 3");
    assert!(line.contains(" renamed/master["), "{line}");
}

/// "severity words `warning:`, `error:`, `fatal:`, `panic:` before the text": none for information.
#[test]
fn information_bears_no_word() {
    needs_root("to run a master");
    let mut postfix = Instance::bare();
    postfix.start();
    postfix.reload();
    for text in ["daemon started -- version", "reload -- version"] {
        let line = postfix.wait_for_log(text);
        assert!(line.contains(&format!("]: {text}")), "{line}");
    }
}
