//! Real Postfix under the master under test: see `common` for how to choose another master, such
//! as Postfix's own.

#[path = "../common/mod.rs"]
mod common;

mod mail;
