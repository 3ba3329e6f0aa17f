//! What these tests share: services, an upgrade, and what the master has open.

use std::collections::BTreeMap;
use std::path::Path;

use testkit::operator::told;
use testkit::programs::example;
use testkit::puppet::Puppets;
use testkit::standalone::Standalone;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the tests are to upgrade for longer than is possible in each run of all tests.
pub fn is_long() -> bool {
    std::env::var_os("MASTER_TEST_UPGRADES").is_some()
}

/// Puppets of a service, and its command for the table.
pub fn puppets(standalone: &Standalone, name: &str) -> (Puppets, String) {
    let puppets = Puppets::at(standalone.path(), name);
    let program = standalone.install(&example("puppet"));
    let command = format!("{} {}", program.display(), puppets.arguments());
    (puppets, command)
}

/// A service that sends a line to each client.
pub fn greeter(standalone: &Standalone) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = root.join("services/examples/minimal.py");
    standalone.install(&program).display().to_string()
}

#[track_caller]
pub fn upgrade(standalone: &Standalone) {
    let told = told(standalone, &["upgrade"]);
    assert_eq!(told, format!("upgraded: version {VERSION} serves\n"));
}

/// How many descriptors the master has of each kind, which stand behind `:` in their names.
pub fn descriptors(standalone: &mut Standalone) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for descriptor in standalone.process().descriptors().into_values() {
        let kind = descriptor.target.split(':').next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

/// Asserts that there are not more descriptors of a kind than before. There may be fewer: what is
/// kept for a service that has had children is not carried over.
#[track_caller]
pub fn expect_no_more(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) {
    let is_more = |(kind, number)| before.get(kind) < Some(number);
    let more = after.iter().any(is_more);
    assert!(!more, "descriptors: {before:?}, then {after:?}");
}
