//! Faults in the environment of a running master: one test for each fault, with one acceptable
//! outcome. Clients are served or the log says why not, no client is lost, the master uses no
//! processor time while it can do nothing, and after the fault it serves as before, with as many
//! descriptors, children and memory as before.
//!
//! These are here and not in a test program of their own because they are scenarios like the
//! others: with the same children, for both masters, and with differences that are listed.

mod children; // children that are killed and stopped
mod clock; // the system's clock, set back and forward
mod crowd; // many clients that record their results
mod descriptors; // the process has no free descriptor
mod disks; // the disk is full
mod names; // a name server that does not answer
mod paths; // sockets are replaced or removed
mod processes; // no process can be started
mod programs; // a daemon's program is replaced or removed
mod reloads; // reloads under load
