//! What goes wrong around a master that runs: one test for each fault, and one acceptable outcome
//! for each. Clients are served or the log says why not, no client is lost, the master rests while
//! it can do nothing, and when the fault is over it serves as before and has no more descriptors,
//! children and memory than before.
//!
//! These are here and not in a test program of their own because they are scenarios like the
//! others: with the same children, for both masters, and with differences that go into the list.

mod children; // children that are killed and stopped
mod clock; // the system's clock, set back and forward
mod crowd; // many clients, each of which knows what became of it
mod descriptors; // no descriptor is free
mod disks; // no room for the log, nor for the lock files
mod names; // a name server that does not answer
mod paths; // somebody puts something else where sockets are
mod processes; // no process can be made
mod programs; // a daemon's program is replaced or removed
mod reloads; // reloads while clients come
