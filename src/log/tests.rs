//! The forms of lines, and what happens where a way out fails.

use super::*;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

fn postlog(dir: &Path) -> Log {
    let mut log = Log::new(Settings {
        tag: "postfix/master".into(),
        target: Target::Postlog {
            socket: dir.join("postlog"),
            file: Some(dir.join("maillog")),
            permissions: 0o600,
            hostname: "mail.example.org".into(),
        },
        format: Format::Text,
        terminal: Terminal::Nothing,
    });
    log.set_postlogd_available(true);
    log
}

/// Everything after the time stamp.
fn without_time(line: &str) -> &str {
    &line["Nov 21 09:05:00 ".len()..]
}

#[test]
fn a_line_reaches_postlogd_while_it_reads_and_the_file_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let pid = std::process::id();
    let mut log = postlog(dir.path());
    log.warning("not read");
    let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
    let expected = format!("mail postfix/master[{pid}]: warning: not read\n");
    assert_eq!(without_time(&file), expected);

    let reader = UnixDatagram::bind(dir.path().join("postlog")).unwrap();
    log.info("read");
    let mut line = [0; 200];
    let length = reader.recv(&mut line).unwrap();
    let line = std::str::from_utf8(&line[..length]).unwrap();
    let expected = format!("mail postfix/master[{pid}]: read");
    assert_eq!(without_time(line), expected);
}

#[test]
fn a_reader_that_does_not_read_does_not_stop_the_master() {
    let dir = tempfile::tempdir().unwrap();
    let _reader = UnixDatagram::bind(dir.path().join("postlog")).unwrap();
    let mut log = postlog(dir.path());
    for n in 0..2000 {
        log.info(n);
    }
    let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
    assert!(file.ends_with(": 1999\n"), "the overflow is in the file");
}

#[test]
fn control_characters_cannot_fake_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = postlog(dir.path());
    log.info("one\rtwo\x1b[31m");
    log.info("three\nfour");
    let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
    let texts: Vec<_> = file
        .lines()
        .map(|l| l.split("]: ").last().unwrap())
        .collect();
    assert_eq!(texts, ["one?two?[31m", "three", "four"]);
}

const ABOUT: About<'_> = About {
    service: Some(("a\"b", "unix")),
    child: Some(4711),
};

#[test]
fn a_line_can_be_an_object_with_fields() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = postlog(dir.path());
    log.set(Settings {
        format: Format::Json,
        ..log.settings().clone()
    });
    log.write_about(Severity::Warning, ABOUT, "a \"b\" \\ \x1b\nsecond");
    log.info("\u{2028}");
    let file = std::fs::read_to_string(dir.path().join("maillog")).unwrap();
    let pid = std::process::id();
    let rest = |line: &str| line["{\"time\":\"2026-11-21T09:05:00.123Z\",".len()..].to_owned();
    let lines: Vec<_> = file.lines().map(rest).collect();
    let begin =
        |severity| format!("\"severity\":\"{severity}\",\"tag\":\"postfix/master\",\"pid\":{pid},");
    let about = ",\"service\":\"a\\\"b\",\"type\":\"unix\",\"child\":4711}";
    assert_eq!(
        lines,
        [
            begin("warning") + "\"message\":\"a \\\"b\\\" \\\\ ?\"" + about,
            begin("warning") + "\"message\":\"second\"" + about,
            begin("info") + "\"message\":\"\u{2028}\"}",
        ]
    );
}

#[test]
fn the_journal_gets_fields() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let journal = UnixDatagram::bind(&socket).unwrap();
    journal.set_nonblocking(true).unwrap();
    let mut log = postlog(dir.path());
    log.set(Settings {
        target: Target::Journal {
            socket,
            facility: "mail".into(),
        },
        ..log.settings().clone()
    });
    let fields = || {
        let mut text = [0; 500];
        let length = journal.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    };
    let pid = std::process::id();
    log.write_about(Severity::Warning, ABOUT, "one\x07two");
    assert_eq!(
        fields(),
        format!(
            "PRIORITY=4\nSYSLOG_FACILITY=2\nSYSLOG_IDENTIFIER=postfix/master\n\
             SYSLOG_PID={pid}\nMESSAGE=warning: one?two\nMASTER_SERVICE=a\"b/unix\n\
             MASTER_CHILD=4711\n"
        )
    );
    log.info("three");
    assert!(fields().ends_with("\nMESSAGE=three\n"));
}

#[test]
fn the_log_file_is_not_reached_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, dir.path().join("maillog")).unwrap();
    let mut log = postlog(dir.path());
    log.info("nowhere to go");
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "");
    let (lines, reason) = log.lost().expect("a loss");
    assert_eq!(lines, 1);
    assert!(reason.contains("maillog: "), "{reason}");
}

#[test]
fn a_renamed_file_is_followed_until_it_is_set_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (file, renamed) = (dir.path().join("maillog"), dir.path().join("maillog.1"));
    let mut log = postlog(dir.path());
    std::fs::rename(&file, &renamed).unwrap();
    log.info("before");
    log.set(log.settings().clone());
    log.info("after");
    assert!(
        std::fs::read_to_string(&renamed)
            .unwrap()
            .ends_with(": before\n")
    );
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .ends_with(": after\n")
    );
}

#[test]
fn a_file_that_cannot_be_opened_again_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (file, renamed) = (dir.path().join("maillog"), dir.path().join("maillog.1"));
    let mut log = postlog(dir.path());
    std::fs::rename(&file, &renamed).unwrap();
    std::fs::create_dir(&file).unwrap();
    log.set(log.settings().clone());
    log.info("still here");
    assert!(
        std::fs::read_to_string(&renamed)
            .unwrap()
            .ends_with(": still here\n")
    );
}

#[test]
fn a_new_file_has_the_mode_that_is_wanted_whatever_the_mask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("maillog");
    let settings = |permissions| Settings {
        tag: "postfix/master".into(),
        target: Target::Postlog {
            socket: dir.path().join("postlog"),
            file: Some(file.clone()),
            permissions,
            hostname: "mail".into(),
        },
        format: Format::Text,
        terminal: Terminal::Nothing,
    };
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    Log::new(settings(0o666)).info("new");
    assert_eq!(mode(), 0o666);
    Log::new(settings(0o600)).info("old");
    assert_eq!(mode(), 0o666, "a file that is there keeps its mode");
}
