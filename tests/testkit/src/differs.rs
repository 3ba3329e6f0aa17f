//! Deliberate differences between our master and the original. Each difference is shown by a test
//! that runs under both, and the list (`man/differences.md`) is generated from these tests.

use std::path::{Path, PathBuf};
use std::thread;

use crate::instance::Instance;
use crate::{is_original, original, programs, under_test};

/// The expected observation for each master.
pub struct Observed {
    pub ours: &'static str,
    pub original: &'static str,
}

/// Shows a deliberate difference: both masters run the scenario, each in an instance of its own
/// without other daemons, and the observations must be as expected. If a difference disappears, the
/// test fails, whichever master is tested.
///
/// The list is generated from the text of these calls, so the arguments must be literals.
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

/// Our master: the tested one, if it is ours.
fn ours() -> PathBuf {
    if is_original() {
        programs::master()
    } else {
        under_test()
    }
}
