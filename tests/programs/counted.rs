//! The master with a counting allocator. Whenever it reads the clock, at least once in each turn,
//! it writes the count to the file in `MASTER_COUNT_FILE`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use master::policy::Time;
use master::start::{Clock, SystemClock};

static REQUESTS: AtomicU64 = AtomicU64::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller satisfies the requirements of `GlobalAlloc`, which are the system
        // allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[derive(Debug)]
struct CountingClock {
    path: std::path::PathBuf,
    file: std::cell::OnceCell<File>,
}

impl Clock for CountingClock {
    fn now(&self) -> Time {
        // Opened here and not earlier, because the master closes unknown descriptors at its start.
        let file = self.file.get_or_init(|| {
            let file = File::options().write(true).open(&self.path);
            file.expect("MASTER_COUNT_FILE names a file")
        });
        let text = format_count(REQUESTS.load(Ordering::Relaxed));
        file.write_all_at(&text, 0).expect("a file to write to");
        SystemClock.now()
    }
}

/// The count in twenty digits, without an allocation.
fn format_count(mut count: u64) -> [u8; 20] {
    let mut text = [b'0'; 20];
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (count % 10) as u8;
        count /= 10;
    }
    text
}

fn main() -> ExitCode {
    let path = std::env::var_os("MASTER_COUNT_FILE")
        .expect("MASTER_COUNT_FILE names a file")
        .into();
    let file = std::cell::OnceCell::new();
    master::start::main(std::rc::Rc::new(CountingClock { path, file }))
}
