//! Namespaces of a test, in which it can change the system without harm to others.

use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs a test in new namespaces. They belong to a thread and its child processes.
pub fn in_own(namespaces: CloneFlags, test: impl FnOnce() + Send) {
    let isolated = || {
        unshare(namespaces).expect("a namespace");
        test();
    };
    thread::scope(|scope| {
        // A new thread, because the caller's thread would stay in the namespace.
        let name = thread::current().name().unwrap_or("test").to_owned();
        let started = thread::Builder::new()
            .name(name)
            .spawn_scoped(scope, isolated);
        if let Err(panic) = started.expect("a thread").join() {
            std::panic::resume_unwind(panic);
        }
    });
}
