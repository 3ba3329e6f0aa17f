//! A process manager in the manner of Postfix's master(8).
//!
//! The master owns the listening sockets of many services, starts a child when a client connects and
//! no child is available, and otherwise does nothing, because children accept clients themselves.
//!
//! The house has few rooms, and one way through them: text becomes a configuration, facts become
//! events, events become actions.
//!
//! | room | what it is for | what it must not know |
//! |---|---|---|
//! | [`protocol`] | what master and child agree on | anything else |
//! | [`config`] | text to [`config::Config`] | descriptors, pids, the clock, the resolver |
//! | [`policy`] | events to actions: who listens, when to start, throttle, wake, stress | descriptors, system calls, the clock, where logs go |
//! | `sys` | the system calls, and the only unsafe code | the table, the configuration |
//! | [`groups`] | control groups of services: their places, limits, use and end | what is configured |
//! | [`sandbox`] | what a child may do: the settings that `master-exec` applies | anything else |
//! | [`errors`] | what errors are called in messages | anything else |
//! | [`files`] | a configuration's files, and the system's names | what is configured |
//! | [`log`] | syslog, postlogd, journal, file, terminal | what is logged |
//! | `runtime` | the loop: descriptors to events, actions to system calls | why an action was chosen |
//! | [`status`] | the document that readers of the status socket get | who reads it |
//! | [`control`] | what an operator's command and the master say to each other | how it gets there |
//! | [`upgrade`] | the state that a master hands over to its next version | how it gets there |
//! | [`output`] | what a program answers on standard output | anything else |
//! | [`options`], [`start`] | the command line, and from it to the loop | |
//!
//! Dependencies go one way: `protocol <- config <- policy <- runtime -> sys`, and only `start` uses
//! `runtime`. A test enforces that (`tests/tidy.rs`). The package `services`, for people who write
//! children, uses `protocol`, `config`, `log` and `output`.
//!
//! To read the program in the order in which it thinks, begin with [`policy`]: `avail.rs` is what
//! all the rest is for.

#![deny(unsafe_code)]
#![warn(missing_debug_implementations)]

pub mod config;
pub mod control;
pub mod errors;
pub mod files;
pub mod groups;
pub mod log;
pub mod options;
pub mod output;
pub mod policy;
pub mod protocol;
pub(crate) mod runtime;
pub mod sandbox;
pub mod start;
pub mod status;
pub(crate) mod sys;
pub mod upgrade;
