//! A library for `LD_PRELOAD` by which a test can change the time of day for one program: it adds
//! the seconds in the file in `WALL_CLOCK_FILE`, eight bytes in the machine's order, to the
//! kernel's time.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use nix::libc::{
    CLOCK_REALTIME, CLOCK_REALTIME_COARSE, MAP_FAILED, MAP_SHARED, PROT_READ, SYS_clock_gettime,
    c_int, c_void, clockid_t, mmap, syscall, time_t, timespec, timeval,
};

/// The mapped file, which stays mapped after its descriptor is closed.
static OFFSET: AtomicPtr<AtomicI64> = AtomicPtr::new(null_mut());

/// Runs before the program, which may close descriptors and change its environment.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = map_file;

extern "C" fn map_file() {
    let Some(path) = std::env::var_os("WALL_CLOCK_FILE") else {
        return;
    };
    let file = File::open(path).expect("the file of the clock");
    // SAFETY: this is a new mapping, which overlaps nothing and is never unmapped.
    let address = unsafe { mmap(null_mut(), 8, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(address, MAP_FAILED, "the file of the clock");
    OFFSET.store(address.cast(), Ordering::Relaxed);
}

fn offset() -> i64 {
    let file = OFFSET.load(Ordering::Relaxed);
    // SAFETY: it is null, or the mapping above, which is page-aligned.
    unsafe { file.as_ref() }.map_or(0, |seconds| seconds.load(Ordering::Relaxed))
}

/// # Safety
/// As for clock_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the caller guarantees valid pointers.
    let result = unsafe { syscall(SYS_clock_gettime, clock, time) } as c_int;
    if result == 0 && matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_COARSE) {
        // SAFETY: the kernel has just written to it, so it is valid.
        unsafe { (*time).tv_sec += offset() };
    }
    result
}

/// # Safety
/// As for gettimeofday(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(time: *mut timeval, _: *mut c_void) -> c_int {
    let now = time_of_day();
    // SAFETY: it is null, or the caller guarantees that it is valid.
    if let Some(time) = unsafe { time.as_mut() } {
        time.tv_sec = now.tv_sec;
        time.tv_usec = now.tv_nsec / 1000;
    }
    0
}

/// # Safety
/// As for time(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(time: *mut time_t) -> time_t {
    let now = time_of_day();
    // SAFETY: it is null, or the caller guarantees that it is valid.
    if let Some(time) = unsafe { time.as_mut() } {
        *time = now.tv_sec;
    }
    now.tv_sec
}

fn time_of_day() -> timespec {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a local variable. This clock always exists.
    unsafe { clock_gettime(CLOCK_REALTIME, &raw mut now) };
    now
}
