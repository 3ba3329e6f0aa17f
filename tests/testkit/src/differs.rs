//! Where ours differs from the original on purpose. Every difference is shown by a test that runs
//! under both, and the list of them (`man/differences.md`) is made from these tests.

use std::path::{Path, PathBuf};
use std::thread;

use crate::instance::Instance;
use crate::{is_original, original, programs, under_test};

/// What is observed of each master.
pub struct Observed {
    pub ours: &'static str,
    pub original: &'static str,
}

/// Shows a deliberate difference: both masters go through the scenario, each in an instance of its
/// own without other daemons, and of each must be observed what is said here. So a difference that
/// has gone away makes the test fail, whichever master the tests are run for.
///
/// The list is made from the text of such calls, so the arguments must be literals.
#[track_caller]
pub fn differs(
    what: &str,
    expected: Observed,
    scenario: impl Fn(&mut Instance) -> &'static str + Sync,
) {
    assert_ne!(expected.ours, expected.original, "no difference: {what}");
    let observe = |master: &Path| {
        let mut postfix = Instance::bare_with(master);
        scenario(&mut postfix)
    };
    thread::scope(|scope| {
        let name = thread::current().name().unwrap_or("test").to_owned();
        let other = thread::Builder::new().name(format!("{name} (the original)"));
        let original = other.spawn_scoped(scope, || observe(&original()));
        let found = observe(&ours());
        assert_eq!(found, expected.ours, "ours: {what}");
        match original.expect("a thread").join() {
            Ok(found) => assert_eq!(found, expected.original, "the original: {what}"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
}

/// The master that is not the original: the one under test, if that is ours.
fn ours() -> PathBuf {
    if is_original() {
        programs::master()
    } else {
        under_test()
    }
}
