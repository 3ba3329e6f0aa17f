//! Starts children, at a cost that does not grow with the number of descriptors, and without
//! waiting for them.
//!
//! fork(2) copies the master's memory tables and its whole descriptor table. Here the child borrows
//! both until it executes its program: clone(2) with `CLONE_VM | CLONE_FILES`. The descriptors that
//! it inherits are put at their agreed numbers beforehand, on slots that were reserved at the start;
//! then close_range(2) with `CLOSE_RANGE_UNSHARE` gives the child a table of its own with just those.
//!
//! The master goes on meanwhile, because an exec can hang: on a FUSE file system even a process that
//! is killed hangs in it. What follows from this:
//!
//! - The child makes raw system calls only: errno and all else of the C library is the master's.
//! - What it reads (arguments, environment, its stack) stays in place until the kernel says that it
//!   has left this memory: it sets [`Task::lives`] to 0 then (`CLONE_CHILD_CLEARTID`).
//! - The slots are not touched before the child has a table of its own, see [`Task::borrows`].
//! - Until exec the child shares the master's fate (its `oom_score_adj`, its dumpable flag). So it
//!   changes no identity, group or capability here.

mod report;
mod reserve;

use std::ffi::CString;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::time::TimeSpec;
use nix::unistd::pipe2;
use syscalls::{Sysno, raw_syscall};

use self::report::Report;
use super::child::ChildProcess;
use super::process::{Limit, place};
use super::signal;
use crate::protocol::{self, LISTENERS_MAX};

/// How long a child may take from its start to the end of its exec.
pub const EXEC_TIME: Duration = Duration::from_secs(1);
/// How long the master waits until the last child has a descriptor table of its own. The child needs
/// one system call for that.
const SLOTS_TIME: Duration = Duration::from_millis(1);
/// How long the last child's descriptors stay in the slots of a master that has nothing else to do.
/// Sooner would be one more turn for most starts: a client's next step takes some milliseconds.
const CLEAR_TIME: Duration = Duration::from_millis(5);

/// Words of 16 bytes of a child's stack: some system calls, no recursion. A test sees to it that
/// little of this is used.
const STACK: usize = 1024;
/// Tasks that are kept for the next children.
const TASKS_KEPT: usize = 4;

/// Bytes of a set of signals, to the kernel.
const SIGNAL_SET: usize = 8;

/// A program, as execve(2) takes it.
#[derive(Debug, Default)]
pub struct Program {
    pub path: CString,
    /// It begins with the name under which the program is called.
    pub argv: Vec<CString>,
    /// For a program that applies these and executes the service's own: it inherits them after the
    /// listeners, and then a pipe, which says why it failed and is closed when it has executed that.
    pub settings: Option<OwnedFd>,
}

/// The environment of all children, as `NAME=VALUE`; [`protocol::GENERATION`] is added for each.
pub type Environment = Arc<[CString]>;

/// The descriptors that a child inherits beside its standard ones and the flow pipe.
#[derive(Debug)]
pub struct Descriptors<'a, Listener> {
    /// Becomes [`protocol::STATUS`].
    pub status: BorrowedFd<'a>,
    /// Become [`protocol::LISTEN`] and following; at most [`LISTENERS_MAX`].
    pub listeners: &'a [Listener],
    /// Becomes standard output and standard error, which are the master's otherwise.
    pub output: Option<BorrowedFd<'a>>,
    /// Whether it becomes standard error alone.
    pub errors_only: bool,
}

/// Starts children.
#[derive(Debug)]
pub struct Spawner {
    /// /dev/null, which holds the slots that no child is being given.
    null: OwnedFd,
    /// The first slot that is not in use: all from [`protocol::STATUS`] up to it are.
    used: RawFd,
    /// Children that have not executed their program, as far as is known, in the order of their
    /// starts. Those that could not execute it stay until they have ended.
    launches: Vec<Launch>,
    /// Such children of a former program, and when they have taken too long.
    taken_over: Vec<(i32, Duration)>,
    /// Whether children get a session of their own, and no standard input.
    pub apart: bool,
    /// Children's, where it is not the master's.
    limit: Option<Limit>,
    /// For the next children. In boxes, because a child's must not move.
    #[expect(clippy::vec_box)]
    idle: Vec<Box<Task>>,
}

/// A child between clone(2) and execve(2), and what it uses of this memory.
#[derive(Debug)]
struct Launch {
    pid: i32,
    /// When it has taken too long; none once that was said, or its exec has failed.
    deadline: Option<Duration>,
    task: Box<Task>,
    /// What a program with [settings](Program::settings) says until it has executed another.
    report: Option<Report>,
}

impl Launch {
    /// Whether the program is being executed, and whether that has failed.
    fn state(&mut self) -> (bool, bool) {
        let (lives, errno) = self.task.state();
        match &mut self.report {
            Some(report) if !lives && errno == 0 => report.read(),
            _ => (lives, errno != 0),
        }
    }
}

/// Why a program was not executed.
#[derive(Debug)]
pub enum ExecError {
    /// The system's reason.
    System(io::Error),
    /// What a program with [settings](Program::settings) says.
    Report(Vec<u8>),
}

impl Spawner {
    /// The first descriptor that is no child's. (Settings, their report and the output have a slot
    /// on their way.)
    pub const END: RawFd = protocol::LISTEN + LISTENERS_MAX as RawFd + 3;

    /// Takes the descriptors from 3 on, which must be free, for the children's, whose limit this is.
    ///
    /// # Errors
    /// The system's: descriptors have run out, or the limit on descriptors is too low.
    pub fn new(limit: Option<Limit>) -> io::Result<Self> {
        Self::reserve(limit, protocol::FLOW_READ)
    }

    /// Makes the pipe that children use to slow each other down, where all have it.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`: descriptors have run out. It is only called at the start, which fails then.
    pub fn make_flow_pipe(&self) -> io::Result<()> {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        // SAFETY: nothing owns the reserved numbers.
        unsafe {
            place(&read, protocol::FLOW_READ, OFlag::empty())?;
            place(&write, protocol::FLOW_WRITE, OFlag::empty())
        }
    }

    /// Starts a child at the time `now`, without waiting for its exec: see
    /// [`Self::take_exec_error`] and [`Self::next_hanging`].
    ///
    /// # Errors
    /// `EAGAIN`: a limit on processes is reached (`RLIMIT_NPROC`, `pids.max`, `kernel.pid_max`); `ENOMEM`;
    /// `EMFILE`, `ENFILE`: no descriptor is left for the pidfd; `EINVAL`: too many listeners are given. No
    /// child was started then. `WouldBlock`: the child before still borrows the slots; try again a little
    /// later.
    pub fn spawn<Listener: AsFd>(
        &mut self,
        now: Duration,
        program: &Arc<Program>,
        environment: &Environment,
        generation: u32,
        descriptors: Descriptors<'_, Listener>,
    ) -> io::Result<ChildProcess> {
        if descriptors.listeners.len() > LISTENERS_MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        if !self.wait_for_slots() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let pipe = program.settings.as_ref().map(|_| Report::pipe());
        let (report, pipe) = pipe.transpose()?.unzip();
        let mut slot = protocol::STATUS;
        let listeners = descriptors.listeners.iter().map(AsFd::as_fd);
        let sockets = [descriptors.status].into_iter().chain(listeners);
        let own = [&program.settings, &pipe].into_iter().flatten();
        let given = sockets.chain(own.map(AsFd::as_fd));
        for fd in given.chain(descriptors.output) {
            // SAFETY: nothing owns the reserved numbers, and no child borrows them.
            unsafe { place(&fd, slot, OFlag::empty())? };
            slot += 1;
            self.used = self.used.max(slot);
        }
        let mut task = self.idle.pop().unwrap_or_default();
        task.prepare(program.clone(), environment.clone(), generation);
        task.end = slot;
        task.limit = self.limit;
        task.apart = self.apart;
        task.output = descriptors.output.map(|_| slot - 1);
        task.errors_only = descriptors.errors_only;
        let child = clone_child(&mut task)?;
        self.launches.push(Launch {
            pid: child.pid(),
            deadline: Some(now + EXEC_TIME),
            task,
            report,
        });
        Ok(child)
    }

    /// Takes the descriptors of the last child out of the slots, where they would stay open when
    /// their service is removed, unless that child still borrows the slots: then later.
    pub fn clear_slots(&mut self) {
        while self.used > protocol::STATUS && !self.is_borrowed() {
            // What the system refuses now is tried again with the next call.
            if self.clear_slot(self.used - 1).is_err() {
                return;
            }
            self.used -= 1;
        }
    }

    fn clear_slot(&self, slot: RawFd) -> io::Result<()> {
        // SAFETY: nothing owns the reserved numbers, and no child borrows them.
        unsafe { place(&self.null, slot, OFlag::O_CLOEXEC) }
    }

    /// Whether the last child uses the slots of this process.
    fn is_borrowed(&self) -> bool {
        let last = self.launches.last();
        last.is_some_and(|launch| launch.task.borrows.load(Ordering::Acquire) == BORROWED)
    }

    /// Waits a moment until the last child has returned the slots. Whether it has.
    pub fn wait_for_slots(&mut self) -> bool {
        if let Some(Launch { task, .. }) = self.launches.last().filter(|_| self.is_borrowed()) {
            let (word, wait) = (task.borrows.as_ptr(), libc::FUTEX_WAIT);
            let timeout = TimeSpec::from(SLOTS_TIME);
            // SAFETY: the word and the timeout outlive the call. Whatever ends it, the word is
            // looked at again.
            unsafe { raw_syscall!(Sysno::futex, word, wait, BORROWED, &raw const timeout) };
        }
        !self.is_borrowed()
    }

    /// Why the child could not execute its program; it then ends with status 1. To be called when
    /// it has ended: nothing is kept of it afterwards.
    pub fn take_exec_error(&mut self, pid: i32) -> Option<ExecError> {
        self.taken_over.retain(|(other, _)| *other != pid);
        let at = self.launches.iter().position(|launch| launch.pid == pid)?;
        let Launch { task, report, .. } = self.launches.remove(at);
        let (lives, errno) = task.state();
        if !lives {
            self.keep(task);
        } else {
            // The kernel does not say of a process that ends with a core dump that it has left.
            mem::forget(task);
        }
        if errno != 0 {
            return Some(ExecError::System(io::Error::from_raw_os_error(errno)));
        }
        report.and_then(Report::into_text).map(ExecError::Report)
    }

    /// A child that has not executed its program within [`EXEC_TIME`]; each is told once.
    pub fn next_hanging(&mut self, now: Duration) -> Option<i32> {
        self.collect();
        let late = |launch: &&mut Launch| launch.deadline.is_some_and(|deadline| deadline <= now);
        let Some(launch) = self.launches.iter_mut().find(late) else {
            return self.next_taken_over(now);
        };
        launch.deadline = None;
        Some(launch.pid)
    }

    /// When [`Self::clear_slots`] has something to do, or [`Self::next_hanging`] may have a child.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        if self.used > protocol::STATUS {
            return Some(now + CLEAR_TIME);
        }
        let deadlines = self.launches.iter().filter_map(|launch| launch.deadline);
        let taken_over = self.taken_over.iter().map(|(_, deadline)| *deadline);
        deadlines.chain(taken_over).min()
    }

    /// Takes back the tasks of children that have executed their program.
    fn collect(&mut self) {
        let mut at = 0;
        while let Some(launch) = self.launches.get_mut(at) {
            match launch.state() {
                (false, false) => {
                    let task = self.launches.remove(at).task;
                    self.keep(task);
                    continue;
                }
                (false, true) => launch.deadline = None,
                (true, _) => {}
            }
            at += 1;
        }
    }

    /// Keeps a task that no child uses.
    fn keep(&mut self, task: Box<Task>) {
        if self.idle.len() < TASKS_KEPT {
            self.idle.push(task);
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // The children that are left may use this for as long as they live.
        mem::forget(mem::take(&mut self.launches));
    }
}

/// The states of [`Task::borrows`].
const RETURNED: u32 = 0;
const BORROWED: u32 = 1;

/// What a child has to do, and where it says how that went. It shares this with its parent, which
/// goes on meanwhile: what changes is atomic. One that is new has nothing to do, and is to be
/// [prepared](Task::prepare).
#[derive(Debug, Default)]
struct Task {
    program: Arc<Program>,
    environment: Environment,
    /// Pointers to what the two above have.
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// `GENERATION=` and up to eleven octal digits, zero-terminated.
    generation: [u8; 24],
    /// The first descriptor that is not the child's.
    end: RawFd,
    limit: Option<Limit>,
    /// The slot of what becomes standard output and standard error.
    output: Option<RawFd>,
    errors_only: bool,
    apart: bool,
    /// The child's alone while it lives.
    stack: Vec<u128>,
    /// Whether the child uses this process's descriptor table.
    borrows: AtomicU32,
    /// Not 0 while the child uses this memory; the kernel changes it.
    lives: AtomicI32,
    /// Why the program was not executed; 0 if it was, or not yet.
    error: AtomicI32,
}

impl Task {
    /// It must not move afterwards.
    fn prepare(&mut self, program: Arc<Program>, environment: Environment, generation: u32) {
        self.generation.fill(0);
        let name = protocol::GENERATION;
        let written = write!(&mut self.generation[..], "{name}={generation:o}");
        debug_assert!(written.is_ok(), "the array has room for 32 bits in octal");
        self.argv.clear();
        self.argv.extend(program.argv.iter().map(|s| s.as_ptr()));
        self.argv.push(ptr::null());
        self.envp.clear();
        self.envp.extend(environment.iter().map(|s| s.as_ptr()));
        self.envp.push(self.generation.as_ptr().cast());
        self.envp.push(ptr::null());
        self.stack.resize(STACK, 0);
        self.program = program;
        self.environment = environment;
        *self.borrows.get_mut() = BORROWED;
        *self.lives.get_mut() = 1;
        *self.error.get_mut() = 0;
    }

    /// Whether the child uses this memory, and why its exec has failed, which is 0 if it has not.
    fn state(&self) -> (bool, i32) {
        let lives = self.lives.load(Ordering::Acquire) != 0;
        (lives, self.error.load(Ordering::Relaxed))
    }
}

/// Starts a process that runs [`run_child`]. All signals are blocked in it at first: a handler that
/// ran there would run in this memory.
fn clone_child(task: &mut Box<Task>) -> io::Result<ChildProcess> {
    let flags = libc::CLONE_VM
        | libc::CLONE_FILES
        | libc::CLONE_PIDFD
        | libc::CLONE_CHILD_CLEARTID
        | libc::SIGCHLD;
    let mut pidfd: RawFd = -1;
    // Stacks grow downwards.
    let stack = task.stack.as_mut_ptr_range().end;
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the child runs `run_child` on a stack of its own, big enough for it and aligned. The
    // task, in its box, and all that it points to stay where they are until `lives` is 0: `Spawner`
    // sees to that. clone(2) takes the place for the pidfd, no thread-local storage, and the word to
    // clear as further arguments.
    let pid = unsafe {
        libc::clone(
            run_child,
            stack.cast(),
            flags,
            ptr::from_mut(&mut **task).cast(),
            &raw mut pidfd,
            ptr::null_mut::<libc::c_void>(),
            task.lives.as_ptr(),
        )
    };
    let error = io::Error::last_os_error();
    // An error here would be one of the call's arguments.
    let _ = mask.thread_set_mask();
    if pid < 0 {
        return Err(error);
    }
    // SAFETY: the kernel has just made it, and it is owned here only.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(ChildProcess::new(pid, pidfd))
}

/// The child, from clone(2) to execve(2).
extern "C" fn run_child(task: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `task` is the parent's, and stays until this process has left the memory; both change
    // only what is atomic in it. The system calls are raw: they touch nothing of the C library's,
    // which is the parent's. The structures that they read are on this stack. Nothing here panics,
    // allocates or takes a lock.
    unsafe {
        let task = &*task.cast::<Task>();
        let unshare = libc::CLOSE_RANGE_UNSHARE;
        let closed = raw_syscall!(Sysno::close_range, task.end, u32::MAX, unshare);
        task.borrows.store(RETURNED, Ordering::Release);
        raw_syscall!(Sysno::futex, task.borrows.as_ptr(), libc::FUTEX_WAKE, 1);
        check(task, closed);
        if let Some(output) = task.output {
            check(
                task,
                raw_syscall!(Sysno::dup3, output, libc::STDERR_FILENO, 0),
            );
            if !task.errors_only {
                check(
                    task,
                    raw_syscall!(Sysno::dup3, output, libc::STDOUT_FILENO, 0),
                );
            }
            raw_syscall!(Sysno::close, output);
        }
        if task.apart {
            // It leads no process group yet, so that this cannot fail.
            raw_syscall!(Sysno::setsid);
            let (path, mode) = (c"/dev/null", libc::O_RDWR);
            let null = raw_syscall!(Sysno::openat, libc::AT_FDCWD, path.as_ptr(), mode);
            check(task, null);
            check(task, raw_syscall!(Sysno::dup3, null, libc::STDIN_FILENO, 0));
            raw_syscall!(Sysno::close, null);
        }
        if let Some((soft, hard)) = task.limit {
            let (limit, old) = ([soft, hard], ptr::null::<u64>());
            // Refused where fs.nr_open was lowered meanwhile: then it has the master's.
            raw_syscall!(
                Sysno::prlimit64,
                0,
                libc::RLIMIT_NOFILE,
                limit.as_ptr(),
                old
            );
        }
        // What the master does with signals is not the child's. This comes before any signal can.
        let (default, none, how) = ([0_u64; 4], [0_u64; 1], libc::SIG_SETMASK);
        let (action, old) = (default.as_ptr(), ptr::null::<u64>());
        for signal in signal::OWN {
            raw_syscall!(Sysno::rt_sigaction, signal, action, old, SIGNAL_SET);
        }
        raw_syscall!(Sysno::rt_sigprocmask, how, none.as_ptr(), old, SIGNAL_SET);
        let (argv, envp) = (task.argv.as_ptr(), task.envp.as_ptr());
        let path = task.program.path.as_ptr();
        check(task, raw_syscall!(Sysno::execve, path, argv, envp));
    }
    0
}

/// Ends the child when a system call has failed.
///
/// # Safety
/// For the child alone, see [`run_child`].
unsafe fn check(task: &Task, result: usize) {
    let result = result as isize;
    if result < 0 {
        task.error
            .store(result.unsigned_abs() as i32, Ordering::Relaxed);
        // SAFETY: the call does not return, and touches no memory.
        unsafe { raw_syscall!(Sysno::exit_group, 1) };
    }
}

#[cfg(test)]
mod tests;
