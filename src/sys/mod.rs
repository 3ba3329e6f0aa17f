//! The system: the only room with unsafe code. It takes plain arguments and gives plain results;
//! it knows neither table nor configuration.
#![allow(unsafe_code)]

pub mod arrivals;
pub mod backchannel;
pub mod channel;
pub mod child;
pub mod clock;
mod closer;
pub mod detached;
pub mod file;
pub mod foreign;
pub mod hangups;
pub mod inherited;
pub mod listen;
pub mod local;
pub mod lookup;
pub mod names;
pub mod poll;
pub mod privilege;
pub mod process;
pub mod queues;
pub mod signal;
mod sock_diag;
pub mod spawn;
pub mod supervisor;
pub mod template_socket;
#[cfg(test)]
pub(crate) mod testing;
pub mod trigger;
pub mod upgrade;
