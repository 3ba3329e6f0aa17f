//! The package `statusd`: its program under the master, and the page in a browser. What it shows is
//! prepared, so that everything that may happen to a mail system can be seen.

#[path = "../common/mod.rs"]
mod common;

mod browser; // Chromium, without a display
mod gallery; // the page, with a past of ten minutes
mod limits; // what a client may cost
mod metrics; // for monitoring
mod page; // for people
mod probes; // for load balancers
mod stage; // statusd under the master
