//! Services that do as they are told, and what the master tells of itself.

use std::path::Path;

use testkit::programs::example;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;

pub use testkit::operator::{masterctl, read_document, service, told};

/// Puppets of a service, and what to write in the table as its command.
pub fn puppets(standalone: &Standalone, name: &str) -> (Puppets, String) {
    let puppets = Puppets::at(standalone.path(), name);
    let program = standalone.install(&example("puppet"));
    let command = format!("{} {}", program.display(), puppets.arguments());
    (puppets, command)
}

/// A service of this name that answers every client with a line, and closes.
pub fn greeter(standalone: &Standalone) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("services/examples/minimal.py");
    standalone.install(&program).display().to_string()
}
