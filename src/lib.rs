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
//! | [`protocol`] | what master and child agree on: descriptors, reports, messages | anything else |
//! | [`config`] | text to [`config::Config`] | descriptors, system calls, the clock, the resolver: time and names are arguments |
//! | [`policy`] | events to actions: what to watch, when to start, throttle, wake, stress | descriptors, system calls, the clock, where logs go; no result depends on the order of a hash table |
//! | `sys` | the system calls, and the only unsafe code | the table, the configuration |
//! | [`groups`] | control groups of services: their places, limits, use and end | what is configured |
//! | [`sandbox`] | what a child may do: the settings that `master-exec` applies | anything else |
//! | [`errors`] | what errors are called in messages | anything else |
//! | [`files`] | a configuration's files, and the system's names | what is configured |
//! | [`log`] | syslog, postlogd, journal, file, terminal | what is logged |
//! | `runtime` | the loop: descriptors to events, actions to system calls; in `runtime/admin` the status and control sockets, in `runtime/reload` and `runtime/upgrade` what their names say | why an action was chosen |
//! | [`status`] | the document that readers of the status socket get | who reads it |
//! | [`control`] | what an operator's command and the master say to each other | how it gets there |
//! | [`upgrade`] | the state that a master hands over to its next version | how it gets there |
//! | [`output`] | what a program answers on standard output | anything else |
//! | [`options`], [`start`] | the command line, and from it to the loop | |
//!
//! Dependencies go one way: `protocol <- config <- policy <- runtime -> sys -> protocol`; beside these,
//! rooms use `errors`, `groups`, `sandbox` and `log`, and only `start` uses `runtime`. A test has the
//! whole list and enforces it (`ROOMS` in `tests/tidy.rs`). `sys` and `runtime` are `pub(crate)`: no other
//! package calls them. The package `services`, for people who write children, uses `protocol`, `config`,
//! `errors`, `files`, `log` and `output`; `statusd` and `ctl` read the document of
//! `status`; `ctl` uses other rooms, too.
//!
//! To read the program in the order in which it thinks, begin with [`policy`]: `avail.rs` is what
//! all the rest is for. `docs/core.md` follows a connection, a report, a reload and an upgrade from
//! function to function.

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
