//! The block of settings that `master-exec` reads, and the failure that the master reads from it.

use master::sandbox::{FAILURE_MAX, Failure, SIZE_MAX, Sandbox};

pub fn run(input: &[u8]) {
    if let Ok(sandbox) = Sandbox::decode(input) {
        assert!(input.len() <= SIZE_MAX);
        let bytes = sandbox.encode();
        let again = bytes.map(|bytes| Sandbox::decode(&bytes));
        assert!(again.is_none_or(|again| again.as_ref() == Ok(&sandbox)));
        let names = sandbox.shown();
        assert_eq!(names.is_empty(), sandbox.is_empty() || names.is_empty());
    }
    if let Some(failure) = Failure::decode(input) {
        assert!(failure.encode().len() <= FAILURE_MAX);
    }
}
