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
enum Manner {
    Says(Vec<u8>),
    /// No data and no end of file.
    Hangs,
}

/// A socket, and a thread that answers on it as long as the process lives.
pub struct FakeMaster {
    path: PathBuf,
    manner: Arc<Mutex<Manner>>,
}

impl FakeMaster {
    /// Answers on `path` with this document.
    pub fn new(path: &Path, document: &Document) -> Self {
        let fake = Self {
            path: path.to_owned(),
            manner: Arc::new(Mutex::new(Manner::Hangs)),
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
        let manner = Arc::clone(&self.manner);
        std::thread::spawn(move || {
            let mut silenced: Vec<UnixStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                let manner = manner.lock().expect("a manner").clone();
                match manner {
                    // The reader may disconnect early.
                    Manner::Says(text) => drop(stream.write_all(&text)),
                    Manner::Hangs => silenced.push(stream),
                }
            }
        });
    }

    pub fn say(&self, document: &Document) {
        self.say_bytes(serde_json::to_vec(document).expect("JSON"));
    }

    pub fn say_bytes(&self, bytes: impl Into<Vec<u8>>) {
        *self.manner.lock().expect("a manner") = Manner::Says(bytes.into());
    }

    pub fn hang(&self) {
        *self.manner.lock().expect("a manner") = Manner::Hangs;
    }

    /// Removes the socket's path.
    pub fn vanish(&self) {
        fs::remove_file(&self.path).expect("a socket");
    }
}
