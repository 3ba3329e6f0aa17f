//! Single groups in the file system.

use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longer names of services are cut off and end with a number made from all of it; a file's name may
/// have 255 bytes.
const NAME_MAX: usize = 160;
/// Groups that are removed at a time: a process with the right to do so may have made any number.
const REMOVED_MAX: u32 = 256;
/// The kernel's file for that, from Linux 5.14 on.
pub(super) const KILL: &str = "cgroup.kill";
/// The files of limits, with what is there if none is set.
pub(super) const USUAL: [(&str, &str); 7] = [
    ("memory.max", "max"),
    ("memory.high", "max"),
    ("pids.max", "max"),
    ("cpu.idle", "0"),
    ("cpu.max", "max"),
    ("cpu.weight", "100"),
    ("io.weight", "default 100"),
];
/// How deep below a service's group they are looked for.
const DEPTH_MAX: u32 = 256;

/// The name of a service's group. The place comes first, which no other living service has, and then the
/// number of its groups before that have not ended; no name is one of the kernel's files.
pub(super) fn name(place: usize, service: &str, number: u32) -> String {
    let mut safe = String::new();
    for byte in service.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'@' => {
                safe.push(byte.into());
            }
            // Writing into a string does not fail.
            _ => write!(safe, "%{byte:02x}").unwrap_or_default(),
        }
    }
    if safe.len() > NAME_MAX {
        safe.truncate(NAME_MAX);
        write!(safe, "%{:016x}", digest(service.as_bytes())).unwrap_or_default();
    }
    let place = match number {
        0 => place.to_string(),
        number => format!("{place}.{number}"),
    };
    format!("service-{place}-{safe}")
}

/// The same number for the same bytes in all versions (FNV-1a).
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Ends all processes in a group and in those below, also those that are frozen.
pub(super) fn kill(path: &Path) {
    // A group that is not there has no processes.
    let _ = fs::write(path.join(KILL), "1");
}

/// Whether a process is in a group or in one below.
pub(super) fn is_populated(path: &Path) -> bool {
    let events = fs::read_to_string(path.join("cgroup.events"));
    events.is_ok_and(|text| text.lines().any(|line| line == "populated 1"))
}

/// Removes a group, and what its processes have made below it. Whether it is gone.
pub(super) fn remove(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => return true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
        Err(_) => {}
    }
    remove_below(path, &mut REMOVED_MAX.clone(), DEPTH_MAX);
    fs::remove_dir(path).is_ok()
}

fn remove_below(path: &Path, left: &mut u32, depth: u32) {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    // No directory stays open while those below are looked at.
    let groups: Vec<_> = groups.take(*left as usize).collect();
    for group in groups {
        if *left == 0 || depth == 0 {
            return;
        }
        *left -= 1;
        let path = group.path();
        if fs::remove_dir(&path).is_err() {
            remove_below(&path, left, depth - 1);
            let _ = fs::remove_dir(&path);
        }
    }
}

/// The name of a master's groups.
pub(super) fn instance(path: &Path) -> String {
    format!("master-{:016x}", digest(path.as_os_str().as_bytes()))
}
