//! Runs happenings from a list.

use std::panic::{self, AssertUnwindSafe};

use crate::happening::Happening;
use crate::simulation::{Broken, Simulation};

/// Lets all of it happen in a new simulation.
///
/// # Errors
/// The promise that was broken.
pub fn replay(list: &[Happening]) -> Result<(), Broken> {
    guarded(|| {
        let mut simulation = Simulation::new();
        list.iter().try_for_each(|&h| simulation.apply(h).map(drop))
    })
}

/// A panic is a broken promise, too.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, Broken>) -> Result<T, Broken> {
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    result.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.into()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// The list as a test would have it.
pub fn written(list: &[Happening]) -> String {
    let items = list.iter().map(|happening| format!("    {happening:?},\n"));
    format!("&[\n{}]", items.collect::<String>())
}
