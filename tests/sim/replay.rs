//! Runs a list of happenings.

use std::panic::{self, AssertUnwindSafe};

use crate::happening::Happening;
use crate::simulation::{Broken, Simulation};

/// Runs the list in a new simulation.
///
/// # Errors
/// The broken promise.
pub fn replay(list: &[Happening]) -> Result<(), Broken> {
    guarded(|| {
        let mut simulation = Simulation::upgraded();
        list.iter().try_for_each(|&h| simulation.apply(h).map(drop))
    })
}

/// Converts a panic to a broken promise.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.into()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// The list in the form of a test.
pub fn written(list: &[Happening]) -> String {
    let items = list.iter().map(|happening| format!("    {happening:?},\n"));
    format!("&[\n{}]", items.collect::<String>())
}
