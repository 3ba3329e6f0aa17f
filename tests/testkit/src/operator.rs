//! An operator's commands for a stand-alone master.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

use master::status::{Document, Service};

use crate::instance::SOON;
use crate::run::{Finished, run};
use crate::standalone::Standalone;

/// Runs masterctl to its end.
#[track_caller]
pub fn masterctl(standalone: &Standalone, arguments: &[&str]) -> Finished {
    run(&mut standalone.masterctl(arguments), SOON)
}

/// The output of a successful masterctl command.
#[track_caller]
pub fn told(standalone: &Standalone, arguments: &[&str]) -> String {
    masterctl(standalone, arguments).expect_success().stdout
}

/// The status document, read from its socket.
pub fn read_document(standalone: &Standalone) -> Document {
    read_document_in(&standalone.queue())
}

/// The status document of the master with this queue directory.
pub fn read_document_in(queue: &Path) -> Document {
    let path = queue.join(master::status::SOCKET);
    let mut stream = UnixStream::connect(path).expect("the status socket");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a document");
    serde_json::from_str(&text).expect("a document of this format")
}

/// The status of one service in the document.
#[track_caller]
pub fn service(standalone: &Standalone, name: &str) -> Service {
    let mut services = read_document(standalone).services.into_iter();
    let found = services.find(|service| service.name == name);
    found.unwrap_or_else(|| panic!("no service {name}"))
}
