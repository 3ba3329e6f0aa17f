//! Answers in the master's place, at a socket of its own. Other packages' tests have this file, too.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use master::status::Document;

/// What somebody who asks gets.
#[derive(Clone)]
enum Manner {
    Says(Vec<u8>),
    /// Nothing, and no end of it.
    Hangs,
}

/// A socket, and a thread that answers at it as long as the process lives.
pub struct FakeMaster {
    path: PathBuf,
    manner: Arc<Mutex<Manner>>,
}

impl FakeMaster {
    /// Who asks at `path` gets this document.
    pub fn new(path: &Path, document: &Document) -> Self {
        let fake = Self {
            path: path.to_owned(),
            manner: Arc::new(Mutex::new(Manner::Hangs)),
        };
        fake.say(document);
        fake.listen();
        fake
    }

    /// Listens where nobody does.
    pub fn listen(&self) {
        let listener = UnixListener::bind(&self.path).expect("a socket");
        // For mail_owner, who asks.
        fs::set_permissions(&self.path, Permissions::from_mode(0o666)).expect("a mode");
        let manner = Arc::clone(&self.manner);
        std::thread::spawn(move || {
            let mut silenced: Vec<UnixStream> = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("a client");
                let manner = manner.lock().expect("a manner").clone();
                match manner {
                    // Who has seen enough is no failure.
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

    /// Has nobody find the socket any more.
    pub fn vanish(&self) {
        fs::remove_file(&self.path).expect("a socket");
    }
}
