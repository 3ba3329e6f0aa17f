//! Saves the history for the next process, which takes over after a reload.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use master::files::open_unlinked;
use master::status::day::Day;
use serde_derive::{Deserialize, Serialize};

use crate::history::{History, Samples};
use crate::watch::INTERVAL;

/// Maximum size of the history file in bytes. The rest of a longer file is not read, and the
/// truncated JSON is ignored.
const FILE_MAX: u64 = 64 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct SavedHistory {
    /// When it was saved.
    time: f64,
    history: Samples,
    /// What `masterctl advise` reads.
    #[serde(default)]
    day: Day,
}

/// Writes the history to a file, atomically.
///
/// # Errors
/// The system's error.
pub fn save(history: &History, day: &Day, file: &Path) -> io::Result<()> {
    let saved = SavedHistory {
        time: now(),
        history: history.since(0),
        day: day.clone(),
    };
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    write_new(&draft, &serde_json::to_vec(&saved)?)?;
    fs::rename(draft, file)
}

/// Creates a new file in place of an existing one, which is not opened because it might be a FIFO
/// or a link. If something appears there meanwhile, that is an error.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = File::create_new(path)?.write_all(text);
    if written.is_err() {
        // A full disk is not to be filled by what is of no use.
        let _ = fs::remove_file(path);
    }
    written
}

/// The history that the previous process has saved; an empty one if there is no usable file.
///
/// # Errors
/// The path is not a regular file, or it is a symbolic link.
pub fn load(file: &Path) -> io::Result<(History, Day)> {
    let file = match open_unlinked(file) {
        Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
        opened => opened.ok(),
    };
    let Some(saved) = file.and_then(read) else {
        return Ok(Default::default());
    };
    // No gap if the clock was set back.
    let gap = (now() - saved.time).max(0.0) / INTERVAL.as_secs_f64();
    let history = History::resume(saved.history, gap.round() as u64);
    Ok((history, saved.day))
}

fn read(file: File) -> Option<SavedHistory> {
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Seconds since 1970.
fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::calm;
    use std::process::Command;

    use serde_json::{Value, json, to_value};

    fn told(history: &History) -> Value {
        to_value(history.since(0)).expect("JSON")
    }

    #[test]
    fn a_history_is_left_and_inherited() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history");
        let mut history = History::default();
        history.take(Some(&calm()));
        let mut day = Day::default();
        day.take(&calm());
        save(&history, &day, &file).expect("a file");
        assert_eq!(load(&file).expect("a history").1, day);
        // On a busy machine there may be a gap.
        let services = |history: &History| told(history)["services"].as_array().map(Vec::len);
        assert_eq!(services(&load(&file).expect("a history").0), Some(7));
        let names = fs::read_dir(directory.path()).expect("a directory");
        assert_eq!(names.count(), 1, "no draft stays");
    }

    /// The limit on file sizes, which stands for a full disk, is a process's own.
    #[test]
    fn a_full_disk_is_an_error_and_no_draft_stays() {
        if std::env::var_os("MASTER_TEST_FULL").is_none() {
            let test = std::env::current_exe().expect("the test");
            let name = "saved::tests::a_full_disk_is_an_error_and_no_draft_stays";
            let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" --exact \"$1\" >/dev/null";
            let shell = Command::new("/bin/sh")
                .args(["-c", script])
                .arg(test)
                .arg(name)
                .env("MASTER_TEST_FULL", "1")
                .status();
            assert!(shell.expect("a shell").success());
            return;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history");
        let mut history = History::default();
        history.take(Some(&calm()));
        let error = save(&history, &Day::default(), &file).expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        let names = fs::read_dir(directory.path()).expect("a directory");
        assert_eq!(names.count(), 0);
    }

    #[test]
    fn what_is_old_or_broken_or_not_there_is_not_inherited() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history");
        let taken = |file: &Path| told(&load(file).expect("a history").0)["taken"].as_u64();
        assert_eq!(taken(&file), Some(0));
        fs::write(&file, "{\"time\":").expect("a file");
        assert_eq!(taken(&file), Some(0));
        let mut history = History::default();
        history.take(Some(&calm()));
        let old = json!({ "time": now() - 3600.0, "history": told(&history) });
        fs::write(&file, old.to_string()).expect("a file");
        assert_eq!(
            told(&load(&file).expect("a history").0)["services"],
            json!([])
        );
    }

    #[test]
    fn a_history_file_that_is_no_regular_file_is_an_error_and_never_a_wait() {
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = directory.path().join("fifo");
        let made = Command::new("mkfifo").arg(&fifo).status();
        assert!(made.expect("mkfifo").success());
        let target = directory.path().join("target");
        fs::write(&target, "{}").expect("a file");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        for (file, kind) in [
            (fifo.as_path(), "a FIFO"),
            (directory.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
            (&link, "a symbolic link"),
        ] {
            let error = load(file).expect_err("an error");
            let expected = format!("it is {kind}, expected a regular file");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_fifo_in_the_place_of_the_draft_is_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history");
        let made = Command::new("mkfifo")
            .arg(directory.path().join("history.new"))
            .status();
        assert!(made.expect("mkfifo").success());
        save(&History::default(), &Day::default(), &file).expect("a file");
        assert!(file.is_file());
    }

    #[test]
    fn a_link_in_the_place_of_the_file_or_of_the_draft_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().expect("a directory");
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").expect("a file");
        let file = directory.path().join("history");
        for link in ["history", "history.new"] {
            let link = directory.path().join(link);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&precious, link).expect("a link");
            save(&History::default(), &Day::default(), &file).expect("a file");
            let kept = fs::read_to_string(&precious).expect("a file");
            assert_eq!(kept, "precious");
            let metadata = file.symlink_metadata().expect("a file");
            assert!(metadata.is_file());
        }
    }
}
