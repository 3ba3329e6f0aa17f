//! Runs the tests of a crate like libtest, and reports tests that cannot run here as ignored.
//! Whether a test can run (as root, with an installed program, on this kernel, under this master)
//! is known only when it runs.
//!
//! A crate sets `harness = false` in Cargo.toml and uses [`main`] as its own; its tests have the
//! attribute [`crate::test`].

use std::any::Any;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{canary, noise, trace};

/// A function with the attribute [`crate::test`].
pub struct Test {
    pub name: &'static str,
    pub run: fn(),
    /// Whether it needs the machine for itself.
    pub alone: bool,
}

inventory::collect!(Test);

/// The attribute's expansion, in the module of the function.
#[macro_export]
macro_rules! register {
    ($function:ident, $alone:literal) => {
        $crate::inventory::submit! {
            $crate::harness::Test {
                name: concat!(module_path!(), "::", stringify!($function)),
                run: $function,
                alone: $alone,
            }
        }
    };
}

/// A test that needs the machine for itself holds it for writing, all others for reading.
static MACHINE: RwLock<()> = RwLock::new(());

/// A test that takes longer is told with its time, because a run has to be quick.
const SLOW: Duration = Duration::from_secs(20);

/// The payload of [`skip`]'s unwinding.
struct Skipped(String);

/// Ends a test that cannot run here; cargo reports it as ignored, with the reason.
pub fn skip(reason: &str) -> ! {
    // Unlike panic!, this prints nothing.
    resume_unwind(Box::new(Skipped(reason.to_owned())))
}

/// Skips the test unless it runs as root, which is needed for `purpose`.
pub fn needs_root(purpose: &str) {
    if !nix::unistd::geteuid().is_root() {
        skip(&format!("needs root ({purpose})"));
    }
}

/// Prints that a part of a test is left out, and why.
pub fn note(reason: &str) {
    let name = thread::current().name().unwrap_or("test").to_owned();
    eprintln!("{name}: in part: {reason}");
}

/// Runs the tests of the calling crate, with the arguments of its command line.
pub fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if canary::is_on() || trace::is_on() {
        // Not from a test, which may be in a namespace of its own.
        noise::watch();
    }
    let threads = std::env::var("RUST_TEST_THREADS");
    arguments.test_threads = arguments
        .test_threads
        .or_else(|| threads.ok()?.parse().ok());
    let mut tests: Vec<&Test> = inventory::iter::<Test>().collect();
    // In front of a test that needs the machine, threads wait for the end of all others: once.
    tests.sort_by_key(|test| (test.alone, test.name));
    let trials = tests.into_iter().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trial(test: &'static Test) -> Trial {
    // libtest's names do not contain the crate.
    let (_, name) = test.name.split_once("::").expect("a path");
    Trial::ignorable_test(name, || {
        if test.alone {
            let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
            run(name, test.run)
        } else {
            let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
            run(name, test.run)
        }
    })
}

/// Runs a test in a thread with its name.
fn run(name: &str, test: fn()) -> Result<Completion, Failed> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(test);
    let begun = Instant::now();
    let result = thread.expect("a thread").join();
    let took = begun.elapsed();
    if took > SLOW {
        eprintln!("{name}: took {} s", took.as_secs());
    }
    result.map(|()| Completion::Completed).or_else(outcome)
}

/// The result of a test that has unwound.
fn outcome(payload: Box<dyn Any + Send>) -> Result<Completion, Failed> {
    match payload.downcast::<Skipped>() {
        Ok(skipped) => Ok(Completion::ignored_with(skipped.0)),
        Err(panic) => Err(Failed::from(message(&*panic))),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked").to_owned()
}
