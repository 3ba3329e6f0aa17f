//! Another program in this process, which goes on with its descriptors; and the same program beside
//! it before that, to find out whether it could.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::unistd::{Pid, alarm, execve, pipe2};

use super::child::ChildProcess;
use super::process::{self, set_nonblocking};
use super::spawn::Spawner;
use super::{detached, file};

/// How long a program may take to say that it understands the state.
pub const CHECK_TIME: Duration = Duration::from_secs(5);
/// Bytes of what it says that are read.
const ANSWER_MAX: usize = 4096;
/// The largest state that is read, in bytes.
const STATE_MAX: u64 = 1 << 30;

/// The path by which this program was executed, made absolute. To be called before the working
/// directory changes.
pub fn own_path() -> Option<PathBuf> {
    // SAFETY: the call takes a number. What it returns is a text on the stack of the process, which
    // stays, or zero.
    let path = unsafe {
        let path = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        if path.is_null() {
            return None;
        }
        std::ffi::CStr::from_ptr(path).to_bytes().to_owned()
    };
    std::path::absolute(OsString::from_vec(path)).ok()
}

/// What a program's file was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([i64; 5]);

/// A regular file that this process may execute, as far as its mode says.
///
/// # Errors
/// In words, what else it is; or the system's.
pub fn executable(path: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    file::expect_regular(&metadata)?;
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::other(
            "it is not executable: set its mode to 0755",
        ));
    }
    Ok(Identity([
        metadata.dev() as i64,
        metadata.ino() as i64,
        metadata.size() as i64,
        metadata.mtime(),
        metadata.mtime_nsec(),
    ]))
}

/// Reads a state. The descriptor is left open, and belongs to the caller's caller.
///
/// # Errors
/// It is no state that cannot be changed any more, or the system's.
pub fn read_state(fd: RawFd) -> io::Result<Vec<u8>> {
    // SAFETY: the number is looked at first; what it names is borrowed for this function.
    let fd = unsafe {
        if libc::fcntl(fd, libc::F_GETFD) < 0 {
            return Err(io::Error::last_os_error());
        }
        BorrowedFd::borrow_raw(fd)
    };
    let unfit = || io::Error::other("it is not a sealed state of a master");
    let seals = fcntl(fd, FcntlArg::F_GET_SEALS).map_err(|_| unfit())?;
    if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_WRITE) {
        return Err(unfit());
    }
    let file = File::from(fd.try_clone_to_owned()?);
    let size = file.metadata()?.len();
    if size > STATE_MAX {
        return Err(io::Error::other("the state is too large"));
    }
    let mut bytes = vec![0; size as usize];
    // Others have the same position in it.
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Further descriptors of these open files. Their numbers are above all that the former program has
/// handed over: none is taken for one that is missing. What cannot be kept is no reason to give up:
/// they are needed only when something else fails.
pub fn keep(fds: &[RawFd], handed_over: &[RawFd]) -> Vec<OwnedFd> {
    let last = handed_over.iter().copied().fold(Spawner::END, RawFd::max);
    let kept = fds.iter().map(|fd| process::duplicate(*fd, last + 1));
    kept.filter_map(Result::ok).collect()
}

/// Takes these descriptors over from the former program, and closes all others but the standard ones
/// and those in `kept`.
///
/// # Errors
/// One that is not open.
pub fn take_over(numbers: &[RawFd], kept: &[OwnedFd]) -> io::Result<BTreeMap<RawFd, OwnedFd>> {
    let mut sorted: Vec<RawFd> = numbers.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted.retain(|fd| *fd > libc::STDERR_FILENO);
    let kept = kept.iter().map(AsRawFd::as_raw_fd);
    let open: Vec<RawFd> = sorted.iter().copied().chain(kept).collect();
    // SAFETY: `start` calls this before the process owns any other descriptor above 2.
    unsafe { process::keep_only(open) };
    let mut taken = BTreeMap::new();
    for fd in sorted {
        if is_childrens(fd) {
            is_open(fd)?;
            continue;
        }
        set_cloexec(fd, true)?;
        // SAFETY: it is open, nothing owns it (see above), and it is taken once.
        taken.insert(fd, unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(taken)
}

/// Whether a number is that of an open descriptor.
///
/// # Errors
/// It is not.
pub fn is_open(fd: RawFd) -> io::Result<()> {
    // SAFETY: the call takes any number.
    open_or_not(fd, unsafe { libc::fcntl(fd, libc::F_GETFD) })
}

/// Has a descriptor be closed when another program is executed, or stay open. That is its only flag.
///
/// # Errors
/// It is not open.
fn set_cloexec(fd: RawFd, is: bool) -> io::Result<()> {
    let flags = if is { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: the call takes any number, and leaves what the descriptor names as it is.
    open_or_not(fd, unsafe { libc::fcntl(fd, libc::F_SETFD, flags) })
}

fn open_or_not(fd: RawFd, result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        let words = format!("descriptor {fd} is not open");
        return Err(io::Error::other(words));
    }
    Ok(())
}

/// Whether a number is one that children have. Nothing owns these, and they stay as they are.
fn is_childrens(fd: RawFd) -> bool {
    fd < Spawner::END
}

/// Has these descriptors stay open when another program is executed, or not.
fn set_all_cloexec(fds: &[RawFd], is: bool) -> io::Result<()> {
    let mut own = fds.iter().filter(|fd| !is_childrens(**fd));
    own.try_for_each(|fd| set_cloexec(*fd, is))
}

/// Executes another program in this process, with the arguments of this one. No signal is taken from
/// now on, until the program does so. Returned is why that was not possible; all is as before then.
pub fn exec(
    program: &Path,
    environment: &BTreeMap<OsString, OsString>,
    fds: &[RawFd],
) -> io::Error {
    let string = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
    let prepared = || -> io::Result<_> {
        let path = string(program.as_os_str().as_bytes())?;
        let arguments = std::env::args_os().map(|argument| string(argument.as_bytes()));
        let arguments: Vec<CString> = arguments.collect::<io::Result<_>>()?;
        let variables = environment
            .iter()
            .map(|(name, value)| string(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
        Ok((path, arguments, variables.collect::<io::Result<Vec<_>>>()?))
    };
    let (path, arguments, variables) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let mask = match SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK) {
        Ok(mask) => mask,
        Err(errno) => return errno.into(),
    };
    let executed = set_all_cloexec(fds, false)
        .and_then(|()| Ok(execve(&path, &arguments, &variables).map(drop)?));
    // What could not be set stays open in a program that is not executed.
    let _ = set_all_cloexec(fds, true);
    let _ = mask.thread_set_mask();
    executed
        .err()
        .unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// The program ended with this status and said this.
    Exited(i32, String),
    Killed(i32, String),
    /// It could not be executed.
    NotExecuted(String),
    /// It did not answer in time, or the process that waited for it has ended.
    Silent,
}

impl Checked {
    fn encode(&self) -> String {
        match self {
            Self::Exited(status, text) => format!("exited {status}\n{text}"),
            Self::Killed(libc::SIGALRM, _) | Self::Silent => "silent 0\n".to_owned(),
            Self::Killed(signal, text) => format!("killed {signal}\n{text}"),
            Self::NotExecuted(reason) => format!("failed 0\n{reason}"),
        }
    }

    /// What the process has written that ran the program.
    pub fn decode(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let (head, rest) = text.split_once('\n').unwrap_or_default();
        let (word, number) = head.split_once(' ').unwrap_or_default();
        let number = number.parse().unwrap_or_default();
        match word {
            "exited" => Self::Exited(number, rest.to_owned()),
            "killed" => Self::Killed(number, rest.to_owned()),
            "failed" => Self::NotExecuted(rest.to_owned()),
            _ => Self::Silent,
        }
    }
}

/// Runs a program beside this one, with the state and the descriptors that it would have, and these
/// arguments. What becomes readable has a text for [`Checked::decode`], and ends.
///
/// # Errors
/// The system's: there is no room for another process.
pub fn check(program: &Path, option: &str, state: &OwnedFd, fds: &[RawFd]) -> io::Result<File> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    detached::run(|| {
        let mut kept = fds.to_vec();
        kept.extend([state.as_raw_fd(), theirs.as_raw_fd()]);
        // SAFETY: this copy leaves after what follows, which uses what is kept.
        unsafe { process::keep_only(kept) };
        let mut inherited = fds.to_vec();
        inherited.push(state.as_raw_fd());
        let mut master = File::from(theirs);
        let checked = set_all_cloexec(&inherited, false)
            .and_then(|()| run(program, option, state.as_raw_fd(), &master));
        let checked = checked.unwrap_or_else(|e| Checked::NotExecuted(describe(&e)));
        // The master may have given up.
        let _ = master.write_all(checked.encode().as_bytes());
    })?;
    Ok(File::from(ours))
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOEXEC) => "it is not a program of this machine".to_owned(),
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

/// In a copy of this process: runs the program, and waits for its end while the master does.
fn run(program: &Path, option: &str, state: RawFd, master: &File) -> io::Result<Checked> {
    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
    set_nonblocking(&ours)?;
    // This copy ends, too, should an exec that hangs keep it waiting.
    alarm::set(CHECK_TIME.as_secs() as u32 + 1);
    let path = CString::new(program.as_os_str().as_bytes())?;
    let option = CString::new(option)?;
    let arguments = [path.clone(), option, CString::new(state.to_string())?];
    let variables = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()));
    let variables: Vec<CString> = variables.collect::<Result<_, _>>()?;
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(theirs.try_clone()?)
        .stderr(theirs)
        .process_group(0);
    // SAFETY: this process is a copy with a single thread, so that no lock is held, and what follows
    // makes system calls.
    unsafe {
        command.pre_exec(move || {
            alarm::set(CHECK_TIME.as_secs() as u32);
            // Not as the command would: that has a shell run what is no program.
            execve(&path, &arguments, &variables).map(drop)?;
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    // The command has the other end of the pipe.
    drop(command);
    let process = Pid::from_raw(child.id() as i32);
    let said = listen(process, File::from(ours), master);
    // It has the master's listeners and locks. What it has started ends, too.
    let _ = killpg(process, Signal::SIGKILL);
    let status = child.wait()?;
    let Some(text) = said? else {
        return Ok(Checked::Silent);
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(match status.signal() {
        Some(signal) => Checked::Killed(signal, text),
        None => Checked::Exited(status.code().unwrap_or(1), text),
    })
}

/// What a program says until it ends, or has said more than any answer; none if it takes longer than
/// it may, or the master waits no longer.
fn listen(process: Pid, mut said: File, master: &File) -> io::Result<Option<Vec<u8>>> {
    let until = Instant::now() + CHECK_TIME;
    let process = ChildProcess::open(process.as_raw())?;
    let mut text = Vec::new();
    let mut is_open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        // That the other side of a pipe is closed is reported unasked.
        let mut fds = [
            PollFd::new(master.as_fd(), PollFlags::empty()),
            PollFd::new(process.as_fd(), PollFlags::POLLIN),
            PollFd::new(said.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if is_open { &mut fds[..] } else { &mut fds[..2] };
        if ppoll(watched, Some(left.into()), None)? == 0 || fds[0].any() == Some(true) {
            return Ok(None);
        }
        let has_ended = fds[1].any() == Some(true);
        let mut bytes = [0; ANSWER_MAX];
        match said.read(&mut bytes) {
            Ok(length) => {
                is_open = length > 0;
                text.extend_from_slice(&bytes[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if has_ended || text.len() > ANSWER_MAX {
            return Ok(Some(text));
        }
    }
}
