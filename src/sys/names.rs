//! The names of services, services(5).

use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

/// getservbyname(3) returns a pointer to storage that the next call overwrites.
static SERVICES: Mutex<()> = Mutex::new(());

/// The port of a TCP service in services(5).
pub fn tcp_service(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let _only_caller = SERVICES.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: both strings end in a zero byte. The result is null or points at static storage, which
    // stays as it is until the next call: no other code of this process makes one, and here the lock
    // keeps other threads away until the port is copied.
    unsafe {
        let entry = libc::getservbyname(name.as_ptr(), c"tcp".as_ptr());
        let port = entry.as_ref()?.s_port;
        Some(u16::from_be(port as u16))
    }
}
