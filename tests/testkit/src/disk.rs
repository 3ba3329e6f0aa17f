//! A small disk for a test.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::CloneFlags;

use crate::instance::SOON;
use crate::namespace;
use crate::run::run;

/// A disk that can be filled.
pub struct Disk {
    filler: PathBuf,
}

impl Disk {
    /// Mounts a disk of this many KiB at a directory, with the same owner and mode. Only the test
    /// and its processes see it.
    pub fn mount(directory: &Path, kilobytes: u32, test: impl FnOnce(Self) + Send) {
        namespace::in_own(CloneFlags::CLONE_NEWNS, || {
            let facts = directory.metadata().expect("a directory");
            let (uid, gid) = (facts.uid(), facts.gid());
            let mode = facts.permissions().mode() & 0o7777;
            let options = format!("size={kilobytes}k,uid={uid},gid={gid},mode={mode:o}");
            let mount = |arguments: &[&str]| {
                run(Command::new("mount").args(arguments), SOON).expect_success();
            };
            mount(&["--make-rprivate", "/"]);
            let directory = directory.to_str().expect("a path");
            mount(&["-t", "tmpfs", "-o", &options, "tmpfs", directory]);
            test(Self {
                filler: Path::new(directory).join("filler"),
            });
        });
    }

    /// Fills the disk completely.
    pub fn fill(&self) {
        let mut file = File::create(&self.filler).expect("a file");
        let mut size = 4096;
        while size > 0 {
            match file.write(&vec![b'.'; size]) {
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::StorageFull => size /= 2,
                Err(why) => panic!("{why}"),
            }
        }
    }

    /// Frees the space.
    pub fn free(&self) {
        std::fs::remove_file(&self.filler).expect("the filler");
    }
}
