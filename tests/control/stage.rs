//! Services that do as they are told, and what the master tells of itself.

use std::path::Path;

use super::common::puppet::{Puppets, example};
use super::common::world::World;

pub use super::common::operator::{masterctl, read_document, service, told};

/// Puppets of a service, and what to write in the table as its command.
pub fn puppets(world: &World, name: &str) -> (Puppets, String) {
    let puppets = Puppets::at(world.path(), name);
    let program = world.install(&example("puppet"));
    let command = format!("{} {}", program.display(), puppets.arguments());
    (puppets, command)
}

/// A service of this name that answers every client with a line, and closes.
pub fn greeter(world: &World) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("services/examples/minimal.py");
    world.install(&program).display().to_string()
}
