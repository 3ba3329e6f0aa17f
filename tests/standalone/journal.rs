//! Lines in systemd's journal, written and read with systemd's own programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::client::Client;
use testkit::disk::Disk;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::run::{Running, run};
use testkit::standalone::Standalone;
use testkit::{needs_root, skip, test};

const JOURNALD: &str = "/lib/systemd/systemd-journald";
/// Settings that keep the journal's effects away from the machine.
const SETTINGS: &str =
    "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\nForwardToWall=no\nForwardToSyslog=no\n";

/// Starts the test's own journal, in its own `/run`.
fn start_journal() -> Running {
    let settings = Path::new("/run/systemd/journald.conf.d");
    for directory in [settings, Path::new("/run/systemd/journal")] {
        fs::create_dir_all(directory).expect("a directory");
    }
    fs::write(settings.join("test.conf"), SETTINGS).expect("a file");
    let mut journal = Running::start(&mut Command::new(JOURNALD));
    until(SOON, "the journal's socket", || {
        assert!(!journal.has_ended(), "{}", journal.stderr());
        Path::new(master::log::JOURNAL).exists()
    });
    journal
}

/// The first entry with this field and value.
#[track_caller]
fn entry(field: &str) -> Value {
    until(SOON, format_args!("an entry with {field}"), || {
        let mut journalctl = Command::new("journalctl");
        journalctl.args(["--directory=/run/log/journal", "--output=json", field]);
        let said = run(&mut journalctl, SOON).stdout;
        Some(serde_json::from_str(said.lines().next()?).expect("an object"))
    })
}

/// "the journal's MASTER_SERVICE is name/type, and MASTER_CHILD the process ID"
#[test]
fn the_journal_can_be_searched_for_a_service_and_its_child() {
    needs_root("to have a journal of its own");
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if id.is_empty() || !Path::new(JOURNALD).exists() {
        skip("systemd's journal is not installed");
    }
    Disk::mount(Path::new("/run"), 64 * 1024, |_| {
        let _journal = start_journal();
        let mut standalone = Standalone::new();
        let script = standalone.script("script", "exit 3");
        let (queue, data) = (standalone.queue(), standalone.path().join("data"));
        standalone.write_toml(&format!(
            "queue_directory = \"{}\"\ndata_directory = \"{}\"\nlog_format = \"journal\"\n\
             mail_owner = \"nobody\"\n",
            queue.display(),
            data.display()
        ));
        standalone.write_table(&format!("a unix n - - - 5 {}\n", script.display()));
        standalone.start();
        let pid = standalone.process().0;
        let _client = Client::connect(&queue.join("public/a").to_string_lossy());
        standalone.wait_for_line("exit status 3");
        let start = entry(&format!("SYSLOG_PID={pid}"));
        let message = format!(
            "daemon started -- version {}, configuration {}",
            env!("CARGO_PKG_VERSION"),
            standalone.table().display()
        );
        for (field, value) in [
            ("MESSAGE", &*message),
            ("PRIORITY", "6"),
            ("SYSLOG_FACILITY", "3"),
            ("SYSLOG_IDENTIFIER", "master/master"),
            ("_PID", &*pid.to_string()),
        ] {
            assert_eq!(start[field], value, "{field}: {start}");
        }
        assert_eq!(start["MASTER_SERVICE"], Value::Null, "{start}");
        let end = entry("MASTER_SERVICE=a/unix");
        let child = end["MASTER_CHILD"].as_str().expect("a child");
        let message = format!(
            "warning: process {} pid {child} exit status 3",
            script.display()
        );
        assert_eq!(end["MESSAGE"], message, "{end}");
        assert_eq!(end["PRIORITY"], "4", "{end}");
    });
}
