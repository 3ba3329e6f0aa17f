//! A fake master that answers on a status socket. Tests of other packages include this file, too.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use master::status::Document;

/// The answer to a reader.
#[derive(Clone)]
enum Answer {
    Says(Vec<u8>),
    /// No data and no end of file.
    Hangs,
}

/// A socket, and a thread that answers on it as long as the process lives.
pub struct FakeMaster {
    path: PathBuf,
    answer: Arc<Mutex<Answer>>,
}

impl FakeMaster {
    /// Answers on `path` with this document.
    pub fn new(path: &Path, document: &Document) -> Self {
        let fake = Self {
            path: path.to_owned(),
            answer: Arc::new(Mutex::new(Answer::Hangs)),
        };
        fake.say(document);
        fake.listen();
        fake
    }

    /// Starts to listen on its path.
    pub fn listen(&self) {
        let listener = UnixListener::bind(&self.path).expect("a socket");
        // mail_owner reads it.
        fs::set_permissions(&self.path, Permissions::from_mode(0o666)).expect("a mode");
        let answer = Arc::clone(&self.answer);
        std::thread::spawn(move || {
            let mut silenced: Vec<UnixStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                let answer = answer.lock().expect("an answer").clone();
                match answer {
                    // The reader may disconnect early.
                    Answer::Says(text) => drop(stream.write_all(&text)),
                    Answer::Hangs => silenced.push(stream),
                }
            }
        });
    }

    pub fn say(&self, document: &Document) {
        self.say_bytes(serde_json::to_vec(document).expect("JSON"));
    }

    pub fn say_bytes(&self, bytes: impl Into<Vec<u8>>) {
        *self.answer.lock().expect("an answer") = Answer::Says(bytes.into());
    }

    pub fn hang(&self) {
        *self.answer.lock().expect("an answer") = Answer::Hangs;
    }

    /// Removes the socket's path.
    pub fn vanish(&self) {
        fs::remove_file(&self.path).expect("a socket");
    }
}
