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

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use syscalls::{Sysno, raw_syscall};

use super::child::ChildProcess;
use super::{process, signal};
use crate::protocol::{self, LISTENERS_MAX};

/// How long a child may take from its start to the end of its exec.
pub const EXEC_TIME: Duration = Duration::from_secs(1);
/// How long the master waits until the last child has a descriptor table of its own, which takes
/// that one a single system call.
const SLOTS_TIME: Duration = Duration::from_millis(1);

/// Bytes of a child's stack: some system calls, no recursion.
const STACK: usize = 32 * 1024;
/// Bytes below the stack that cannot be accessed. No page is larger.
const GUARD: usize = 64 * 1024;
/// Stacks that are kept for the next children.
const STACKS_KEPT: usize = 4;

/// Bytes of a set of signals, to the kernel.
const SIGNAL_SET: usize = 8;

/// A program with its arguments, as execve(2) takes them.
#[derive(Debug)]
pub struct Program {
    path: CString,
    argv: Vec<CString>,
}

impl Program {
    /// `argv` begins with the name under which the program is called.
    pub fn new(path: CString, argv: Vec<CString>) -> Self {
        Self { path, argv }
    }
}

/// The environment of all children; [`protocol::GENERATION`] is added for each.
#[derive(Clone, Debug, Default)]
pub struct Environment(Arc<[CString]>);

impl Environment {
    /// `variables` are `NAME=VALUE`.
    pub fn new(variables: Vec<CString>) -> Self {
        Self(variables.into())
    }
}

/// The descriptors that a child inherits beside its standard ones and the flow pipe.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'a> {
    /// Becomes [`protocol::STATUS`].
    pub status: BorrowedFd<'a>,
    /// Become [`protocol::LISTEN`] and following; at most [`LISTENERS_MAX`].
    pub listeners: &'a [BorrowedFd<'a>],
    /// Becomes standard output and standard error, which are the master's otherwise.
    pub output: Option<BorrowedFd<'a>>,
}

impl Descriptors<'_> {
    /// What is put at the slots from [`protocol::STATUS`] on. The output has a slot on its way.
    fn in_order(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listeners = self.listeners.iter().copied();
        [self.status]
            .into_iter()
            .chain(listeners)
            .chain(self.output)
    }
}

/// Starts children.
#[derive(Debug)]
pub struct Spawner {
    /// /dev/null, which holds the slots that no child is being given.
    null: OwnedFd,
    /// The first slot that is not in use: all from [`protocol::STATUS`] up to it are.
    used: RawFd,
    /// Children that may not have executed their program yet, in the order of their starts.
    launches: Vec<Launch>,
    /// Execs that have failed: the child, and why.
    failed: Vec<(i32, io::Error)>,
    stacks: Vec<Stack>,
}

/// A child between clone(2) and execve(2), and what it uses of this memory.
#[derive(Debug)]
struct Launch {
    pid: i32,
    /// When it has taken too long; none once that was said.
    deadline: Option<Duration>,
    task: Box<Task>,
    stack: Stack,
}

impl Spawner {
    /// The first descriptor that is no child's.
    pub const END: RawFd = protocol::LISTEN + LISTENERS_MAX as RawFd;

    /// Takes the descriptors from 3 on, which must be free, for the children's.
    ///
    /// # Errors
    /// The system's: descriptors have run out, or the limit on descriptors is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            null: process::reserve_descriptors(protocol::FLOW_READ, Self::END)?,
            used: protocol::STATUS,
            launches: Vec::new(),
            failed: Vec::new(),
            stacks: Vec::new(),
        })
    }

    /// Puts the flow pipe where all children have it.
    ///
    /// # Errors
    /// The system's.
    pub fn set_flow_pipe(&mut self, read: OwnedFd, write: OwnedFd) -> io::Result<()> {
        process::place(read.as_raw_fd(), protocol::FLOW_READ, 0)?;
        process::place(write.as_raw_fd(), protocol::FLOW_WRITE, 0)
    }

    /// Starts a child at the time `now`, without waiting for its exec: see
    /// [`Self::take_exec_error`] and [`Self::next_hanging`].
    ///
    /// # Errors
    /// The system's, when there is no room for another process or too many listeners are given.
    /// `WouldBlock`: the child before still borrows the slots; try again a little later.
    pub fn spawn(
        &mut self,
        now: Duration,
        program: &Arc<Program>,
        environment: &Environment,
        generation: u32,
        descriptors: Descriptors<'_>,
    ) -> io::Result<ChildProcess> {
        let count = descriptors.in_order().count() - 1;
        if count > LISTENERS_MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        if !self.wait_for_slots() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let end = protocol::LISTEN + count as RawFd;
        self.used = self.used.max(end);
        for (slot, fd) in (protocol::STATUS..).zip(descriptors.in_order()) {
            process::place(fd.as_raw_fd(), slot, 0)?;
        }
        let output = descriptors.output.map(|_| end - 1);
        let stack = self.stacks.pop().map_or_else(Stack::new, Ok)?;
        let task = Task::new(
            program.clone(),
            environment.clone(),
            generation,
            end,
            output,
        );
        let child = clone_child(&task, &stack)?;
        self.launches.push(Launch {
            pid: child.pid(),
            deadline: Some(now + EXEC_TIME),
            task,
            stack,
        });
        Ok(child)
    }

    /// Takes the descriptors of the last child out of the slots, where they would stay open when
    /// their service is removed, unless that child still borrows the slots: then later.
    pub fn clear_slots(&mut self) {
        self.collect();
        if self.used == protocol::STATUS || self.borrower().is_some() {
            return;
        }
        while self.used > protocol::STATUS {
            let slot = self.used - 1;
            // What the system refuses now is tried again with the next call.
            if process::place(self.null.as_raw_fd(), slot, libc::O_CLOEXEC).is_err() {
                return;
            }
            self.used = slot;
        }
    }

    /// Why the child could not execute its program; it then ends with status 1. To be called when
    /// it has ended, because nothing is kept of it afterwards.
    pub fn take_exec_error(&mut self, pid: i32) -> Option<io::Error> {
        self.collect();
        // A process that was killed may not have said that it has left.
        let ended = self.launches.iter().position(|launch| launch.pid == pid);
        if let Some(at) = ended {
            self.launches.remove(at);
        }
        let failed = self.failed.iter().position(|(failed, _)| *failed == pid)?;
        Some(self.failed.swap_remove(failed).1)
    }

    /// A child that has not executed its program within [`EXEC_TIME`]; each is told once.
    pub fn next_hanging(&mut self, now: Duration) -> Option<i32> {
        self.collect();
        let late = |launch: &&mut Launch| launch.deadline.is_some_and(|deadline| deadline <= now);
        let launch = self.launches.iter_mut().find(late)?;
        launch.deadline = None;
        Some(launch.pid)
    }

    /// When [`Self::clear_slots`] has something to do, or [`Self::next_hanging`] may have a child.
    pub fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        self.collect();
        if self.used > protocol::STATUS {
            return Some(now + SLOTS_TIME);
        }
        self.launches
            .iter()
            .filter_map(|launch| launch.deadline)
            .min()
    }

    /// Lets go of what the children use that have executed their program, or have ended.
    fn collect(&mut self) {
        let mut at = 0;
        while let Some(launch) = self.launches.get(at) {
            if launch.task.lives.load(Ordering::Acquire) != 0 {
                at += 1;
                continue;
            }
            let Launch {
                pid, task, stack, ..
            } = self.launches.remove(at);
            match task.error.load(Ordering::Relaxed) {
                0 => {}
                errno => self.failed.push((pid, io::Error::from_raw_os_error(errno))),
            }
            if self.stacks.len() < STACKS_KEPT {
                self.stacks.push(stack);
            }
        }
    }

    /// The last child, while it uses the slots of this process.
    fn borrower(&self) -> Option<&Task> {
        let task = &*self.launches.last()?.task;
        (task.borrows.load(Ordering::Acquire) != RETURNED).then_some(task)
    }

    /// Waits a moment until the last child has returned the slots. Whether it has.
    pub fn wait_for_slots(&mut self) -> bool {
        self.collect();
        let Some(task) = self.borrower() else {
            return true;
        };
        let state = &task.borrows;
        let waiting =
            state.compare_exchange(BORROWED, AWAITED, Ordering::Acquire, Ordering::Acquire);
        if waiting != Err(RETURNED) {
            futex_wait(state, AWAITED, SLOTS_TIME);
        }
        state.load(Ordering::Acquire) == RETURNED
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.collect();
        // The children that are left may use this for as long as they live.
        std::mem::forget(std::mem::take(&mut self.launches));
    }
}

/// The states of [`Task::borrows`]. In the second, the parent waits for the third.
const BORROWED: u32 = 0;
const AWAITED: u32 = 1;
const RETURNED: u32 = 2;

/// What a child has to do, and where it says how that went. It shares this with its parent, which
/// goes on meanwhile: what changes is atomic.
#[derive(Debug)]
struct Task {
    program: Arc<Program>,
    argv: Vec<*const libc::c_char>,
    /// What `envp` points to, but for the last.
    _environment: Environment,
    envp: Vec<*const libc::c_char>,
    /// `GENERATION=` and up to eleven octal digits, zero-terminated.
    generation: [u8; 24],
    /// The first descriptor that is not the child's.
    end: RawFd,
    /// The slot of what becomes standard output and standard error.
    output: Option<RawFd>,
    /// Whether the child uses this process's descriptor table: [`BORROWED`] and following.
    borrows: AtomicU32,
    /// Not 0 while the child uses this memory; the kernel changes it.
    lives: AtomicI32,
    /// Why the program was not executed; 0 if it was, or not yet.
    error: AtomicI32,
}

impl Task {
    /// In a box, because the pointers must stay valid when the value moves.
    fn new(
        program: Arc<Program>,
        environment: Environment,
        generation: u32,
        end: RawFd,
        output: Option<RawFd>,
    ) -> Box<Self> {
        let pointers = |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect();
        let mut task = Box::new(Self {
            argv: pointers(&program.argv),
            envp: pointers(&environment.0),
            program,
            _environment: environment,
            generation: [0; 24],
            end,
            output,
            borrows: AtomicU32::new(BORROWED),
            lives: AtomicI32::new(1),
            error: AtomicI32::new(0),
        });
        let name = protocol::GENERATION;
        let written = write!(&mut task.generation[..], "{name}={generation:o}");
        debug_assert!(written.is_ok(), "the array has room for 32 bits in octal");
        let generation = task.generation.as_ptr().cast();
        task.argv.push(ptr::null());
        task.envp.extend([generation, ptr::null()]);
        task
    }
}

/// Starts a process that runs [`run_child`]. All signals are blocked in it at first: a handler that
/// ran there would run in this memory.
fn clone_child(task: &Task, stack: &Stack) -> io::Result<ChildProcess> {
    let flags = libc::CLONE_VM
        | libc::CLONE_FILES
        | libc::CLONE_PIDFD
        | libc::CLONE_CHILD_CLEARTID
        | libc::SIGCHLD;
    let mut pidfd: RawFd = -1;
    let mut mask = SigSet::empty();
    let all = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), Some(&mut mask))?;
    // SAFETY: the child runs `run_child` on a stack of its own, big enough for it. `task`, all that
    // it points to and the stack stay where they are until `lives` is 0 or the process was reaped:
    // the callers see to that (`Spawner::launches`). clone(2) takes the place for the pidfd, no
    // thread-local storage, and the word to clear as further arguments.
    let pid = unsafe {
        libc::clone(
            run_child,
            stack.top(),
            flags,
            ptr::from_ref(task).cast_mut().cast(),
            &raw mut pidfd,
            ptr::null_mut::<libc::c_void>(),
            task.lives.as_ptr(),
        )
    };
    let error = io::Error::last_os_error();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
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
        if task.borrows.swap(RETURNED, Ordering::AcqRel) == AWAITED {
            raw_syscall!(Sysno::futex, task.borrows.as_ptr(), libc::FUTEX_WAKE, 1);
        }
        check(task, closed);
        if let Some(output) = task.output {
            check(
                task,
                raw_syscall!(Sysno::dup3, output, libc::STDOUT_FILENO, 0),
            );
            check(
                task,
                raw_syscall!(Sysno::dup3, output, libc::STDERR_FILENO, 0),
            );
            raw_syscall!(Sysno::close, output);
        }
        // Handlers of the master are none of the child's. This comes before any signal can.
        let default = [0_u64; 8];
        let none = [0_u64; 1];
        for number in signal::CAUGHT {
            let old = ptr::null::<u64>();
            raw_syscall!(
                Sysno::rt_sigaction,
                number,
                default.as_ptr(),
                old,
                SIGNAL_SET
            );
        }
        let (how, old) = (libc::SIG_SETMASK, ptr::null::<u64>());
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

/// Waits until `word` is no longer `value` and its waiters were woken, for `timeout` at the most.
fn futex_wait(word: &AtomicU32, value: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the word and the timeout outlive the call. Whatever ends it, the caller looks again.
    unsafe {
        let (word, wait) = (word.as_ptr(), libc::FUTEX_WAIT);
        libc::syscall(libc::SYS_futex, word, wait, value, &raw const timeout);
    }
}

/// Memory for a child's stack, with pages below it that cannot be accessed.
#[derive(Debug)]
struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which overlaps nothing.
        let base = unsafe { libc::mmap(ptr::null_mut(), GUARD + STACK, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self(base);
        // SAFETY: the lower part of the mapping just made.
        if unsafe { libc::mprotect(base, GUARD, libc::PROT_NONE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Stacks grow downwards, and mappings end on a page, so the top is aligned.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(GUARD + STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping that new() made. The child that used it has left this memory, or the
        // stack was never given to one: see `Launch`.
        unsafe { libc::munmap(self.0, GUARD + STACK) };
    }
}

#[cfg(test)]
mod tests;
