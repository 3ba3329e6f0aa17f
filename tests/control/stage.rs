//! Services and status documents for these tests.

use std::path::Path;

use testkit::programs::example;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;

pub use testkit::operator::{masterctl, read_document, service, told};

/// Puppets of a service, and its command for the table.
pub fn puppets(standalone: &Standalone, name: &str) -> (Puppets, String) {
    let puppets = Puppets::at(standalone.path(), name);
    let program = standalone.install(&example("puppet"));
    let command = format!("{} {}", program.display(), puppets.arguments());
    (puppets, command)
}

/// Adds a service that sends one line to each client and closes the connection.
pub fn greeter(standalone: &Standalone) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("services/examples/minimal.py");
    standalone.install(&program).display().to_string()
}
