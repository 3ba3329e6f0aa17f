//! Asks the master how it is.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use master::config::{Base, Values};
use master::files::Location;
use master::status::{Document, FORMAT, SOCKET};

/// A master that has not answered by then does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The longest document: ten thousand services with a hundred children each have less.
const DOCUMENT_MAX: usize = 128 * 1024 * 1024;

/// The queue directory of a configuration. What else is wrong in its files does not matter: the
/// master that runs has read other ones.
///
/// # Errors
/// A file that cannot be read, or no such parameter.
pub fn queue_directory(location: &Location) -> Result<PathBuf> {
    let sources = location.read_parameters()?;
    let mut values = Values::new(&sources.directory);
    if let Base::Postfix(main_cf) = &sources.base {
        values.load(main_cf);
    }
    if let Some(master_toml) = &sources.master_toml {
        values.load_toml(master_toml);
    }
    if let Base::StandAlone(stand_alone) = &sources.base {
        let directory = stand_alone.queue_directory.as_os_str();
        values.default("queue_directory", directory.as_encoded_bytes());
    }
    values.complete(location.is_stand_alone(), "localhost", std::process::id());
    match values.string("queue_directory") {
        Ok(directory) => Ok(directory.into()),
        Err(findings) => bail!("queue_directory: {findings}"),
    }
}

/// What the master of a queue directory tells of itself.
///
/// # Errors
/// There is no master, or it may not be asked, or it does not answer.
pub fn read(queue: &Path) -> Result<Document> {
    let socket = queue.join(SOCKET);
    let stream = UnixStream::connect(&socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow::anyhow!("no master runs on {}", queue.display())
        }
        ErrorKind::PermissionDenied => anyhow::anyhow!(
            "{}: permission denied: ask as root, or as a member of mail_owner's group",
            socket.display()
        ),
        _ => anyhow::Error::from(error).context(format!("connect to {}", socket.display())),
    })?;
    let text = receive(stream, ANSWER_WITHIN);
    let text = text.with_context(|| format!("read from {}", socket.display()))?;
    parse(&text).with_context(|| format!("read from {}", socket.display()))
}

/// All that comes until the end, within a time.
fn receive(mut stream: UnixStream, limit: Duration) -> Result<Vec<u8>> {
    let deadline = Instant::now() + limit;
    let mut text = Vec::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the master does not answer");
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(text),
            Ok(length) => text.extend_from_slice(&part[..length]),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted | ErrorKind::WouldBlock => {}
                _ => return Err(error.into()),
            },
        }
        ensure!(text.len() <= DOCUMENT_MAX, "more than {DOCUMENT_MAX} bytes");
    }
}

fn parse(text: &[u8]) -> Result<Document> {
    ensure!(!text.is_empty(), "the master went away");
    let document: Document = serde_json::from_slice(text).context("this is no document")?;
    ensure!(
        document.format == FORMAT,
        "the document has format {}: expected {FORMAT}; use the masterctl of the master's version",
        document.format
    );
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::calm;
    use std::fs;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    /// A queue directory with a socket.
    fn queue() -> (tempfile::TempDir, UnixListener) {
        let queue = tempfile::tempdir().expect("a directory");
        fs::create_dir(queue.path().join("pid")).expect("a directory");
        let listener = UnixListener::bind(queue.path().join(SOCKET)).expect("a socket");
        (queue, listener)
    }

    /// What is read when the master says this.
    fn told(bytes: Vec<u8>) -> Result<Document> {
        let (queue, listener) = queue();
        let master = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(&bytes).expect("a reader");
        });
        let result = read(queue.path());
        master.join().expect("an end");
        result
    }

    #[test]
    fn the_document_is_what_the_master_says() {
        let text = serde_json::to_vec(&calm()).expect("JSON");
        assert_eq!(told(text).expect("a document"), calm());
    }

    #[test]
    fn without_a_master_there_is_no_document() {
        let queue = tempfile::tempdir().expect("a directory");
        let error = read(queue.path()).expect_err("no socket").to_string();
        assert!(error.starts_with("no master runs on /"), "{error}");
        let (queue, listener) = self::queue();
        drop(listener);
        let error = read(queue.path()).expect_err("no listener").to_string();
        assert!(error.starts_with("no master runs on /"), "{error}");
    }

    #[test]
    fn what_is_cut_off_or_of_another_format_is_no_document() {
        let error = |bytes| format!("{:#}", told(bytes).expect_err("no document"));
        assert!(error(Vec::new()).contains("the master went away"));
        assert!(error(b"{\"format\": 1".to_vec()).contains("this is no document"));
        let mut later = calm();
        later.format = FORMAT + 1;
        let text = serde_json::to_vec(&later).expect("JSON");
        assert!(error(text).contains("use the masterctl of the master's version"));
    }

    #[test]
    fn a_master_that_does_not_answer_is_not_waited_for() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets");
        let error = receive(ours, Duration::from_millis(20)).expect_err("silence");
        assert!(error.to_string().contains("does not answer"), "{error}");
    }

    #[test]
    fn the_queue_directory_is_found_though_the_files_are_wrong() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            fs::write(directory.path().join(name), text).expect("a file");
        };
        write(
            "main.cf",
            "queue_directory = /queue/$mail_name\nmail_name = x\nwrong\n",
        );
        write("master.cf", "all of it is wrong\n");
        let location = Location::find(directory.path(), |_| None).expect("files");
        let queue = queue_directory(&location).expect("a parameter");
        assert_eq!(queue, Path::new("/queue/x"));
    }

    #[test]
    fn services_that_stand_alone_have_a_queue_directory_of_their_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let table = directory.path().join("services.cf");
        fs::write(&table, "").expect("a file");
        let session = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/1".into());
        let location = Location::find(&table, session).expect("a table");
        let queue = queue_directory(&location).expect("a default");
        assert!(queue.ends_with("master"), "{}", queue.display());
        fs::write(
            directory.path().join("master.toml"),
            "queue_directory = \"/q\"\n",
        )
        .expect("a file");
        let queue = queue_directory(&location).expect("a parameter");
        assert_eq!(queue, Path::new("/q"));
    }
}
