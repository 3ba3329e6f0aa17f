//! The package `services`: its programs, and with them its library, under the master.
//!
//! A test about the library passes under Postfix's own master too: run them with
//! `MASTER_UNDER_TEST`, as the others.

#[path = "../common/mod.rs"]
mod common;

mod echo; // echo, discard, daytime
mod waiting; // what waiting costs, and when it ends
