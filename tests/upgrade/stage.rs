//! What these tests share: an upgrade, and what the master has open.

use std::collections::BTreeMap;

use testkit::operator::told;
use testkit::standalone::Standalone;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether the tests are to upgrade for longer than is possible in each run of all tests.
pub fn is_long() -> bool {
    std::env::var_os("MASTER_TEST_UPGRADES").is_some()
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
