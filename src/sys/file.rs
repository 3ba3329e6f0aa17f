//! Files that are regular ones, or an error: nothing else is opened, so that nothing can make the
//! master wait. And files in memory.

use std::ffi::CStr;
use std::fs::{self, File, FileType, Metadata, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::{clock, privilege};

/// A file in memory that cannot be changed any more. The name is for `/proc/PID/fd` only.
///
/// # Errors
/// The system's: descriptors or memory have run out.
pub fn sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file.into())
}

/// Whether this is a regular file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: it is something else, in words.
pub fn expect_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = kind(metadata.file_type());
    Err(io::Error::new(
        ErrorKind::InvalidInput,
        format!("it is {kind}, expected a regular file"),
    ))
}

/// Whether there is a regular file, or nothing that can be seen. A symbolic link is not followed.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: it is something else, in words.
pub fn check_regular(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_symlink() => expect_regular(&metadata),
        _ => Ok(()),
    }
}

/// Whether a path is neither a symbolic link nor one of several names of a file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: it is, in words.
pub fn check_unlinked(path: &Path) -> io::Result<()> {
    let problem = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => "it is a symbolic link, expected a regular file",
        Ok(metadata) if metadata.nlink() != 1 => {
            "it has other names, expected a file with one name"
        }
        _ => return Ok(()),
    };
    Err(io::Error::new(ErrorKind::InvalidInput, problem))
}

/// Gives a file of any type another name in its directory, which no other file is likely to have, and
/// which no other program can foresee. A symbolic link is not followed.
///
/// # Errors
/// The file is missing (`ENOENT`), or cannot be renamed (`EACCES`, `EROFS`, `EBUSY` for a mount point):
/// it is where it was.
pub fn rename_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".replaced-{:x}", clock::time_of_day().as_nanos()));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Gives the user of this process back what the mode of a file or directory of theirs takes from them,
/// and tells the mode that it had, if it was too little.
///
/// # Errors
/// The system's.
pub fn restore_access(path: &Path) -> io::Result<Option<u32>> {
    let metadata = path.symlink_metadata()?;
    let needed = if metadata.is_dir() { 0o700 } else { 0o600 };
    let mode = metadata.mode() & 0o7777;
    let is_own = metadata.uid() == privilege::user().0 && !metadata.is_symlink();
    if !is_own || mode & needed == needed {
        return Ok(None);
    }
    fs::set_permissions(path, Permissions::from_mode(mode | needed))?;
    Ok(Some(mode))
}

/// What a file is, with an article.
pub fn kind(file_type: FileType) -> &'static str {
    if file_type.is_file() {
        "a regular file"
    } else if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a FIFO"
    } else if file_type.is_socket() {
        "a socket"
    } else if file_type.is_char_device() || file_type.is_block_device() {
        "a device"
    } else {
        "a symbolic link"
    }
}
