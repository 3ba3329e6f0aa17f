//! Starting a child, at a cost that does not grow with the number of descriptors.
//!
//! fork(2) copies the master's memory tables and its whole descriptor table, in a busy master some
//! ten thousand entries for a child that keeps ten. Here the child borrows both until it runs its
//! program: `CLONE_VM | CLONE_VFORK | CLONE_FILES`, while this process waits. The child's
//! descriptors are put at their agreed numbers beforehand, on slots that were reserved at start;
//! close_range(2) with `CLOSE_RANGE_UNSHARE` then gives the child a table of its own with just those.
//!
//! All signals are blocked meanwhile: a handler or a death in the child would be one in the master.
//! The child has no other copy of the master's state to clean up, and it never touches the poller.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use super::process;
use crate::protocol::{self, LISTENERS_MAX};

/// The child runs on this much stack: a handful of system calls, no recursion.
const STACK: usize = 64 * 1024;

/// A program with its arguments, ready for execve(2), which must find everything in place: the
/// child may not allocate.
#[derive(Debug)]
pub struct Program {
    path: CString,
    argv: CStrings,
}

impl Program {
    /// `argv` has the program's name for itself first.
    pub fn new(path: CString, argv: Vec<CString>) -> Self {
        let argv = CStrings::new(argv);
        Self { path, argv }
    }
}

/// Strings and the null-terminated array of pointers to them that C wants.
#[derive(Debug)]
struct CStrings {
    /// What the pointers point at.
    _strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStrings {
    fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr());
        let pointers = pointers.chain([ptr::null()]).collect();
        Self {
            _strings: strings,
            pointers,
        }
    }
}

/// The environment of all children, with a place for what differs: the generation.
#[derive(Debug)]
pub struct Environment {
    variables: CStrings,
    /// `GENERATION=` and up to eleven octal digits, zero-terminated.
    generation: [u8; 24],
}

impl Environment {
    /// `variables` are `NAME=VALUE`.
    pub fn new(variables: Vec<CString>) -> Self {
        let mut variables = CStrings::new(variables);
        // Before the end of the array, a pointer for the generation.
        variables.pointers.push(ptr::null());
        Self {
            variables,
            generation: [0; 24],
        }
    }

    /// The array for execve(2), with this generation; valid until `self` moves or changes.
    fn with_generation(&mut self, generation: u32) -> *const *const libc::c_char {
        self.generation.fill(0);
        let written = write!(
            &mut self.generation[..],
            "{}={generation:o}",
            protocol::GENERATION
        );
        debug_assert!(written.is_ok(), "the array has room for 32 bits in octal");
        let at = self.variables.pointers.len() - 2;
        self.variables.pointers[at] = self.generation.as_ptr().cast();
        self.variables.pointers.as_ptr()
    }
}

/// The descriptors that a child gets beside its standard ones and the flow pipe.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors<'a> {
    /// Becomes [`protocol::STATUS`].
    pub status: BorrowedFd<'a>,
    /// Become [`protocol::LISTEN`] and following; at most [`LISTENERS_MAX`].
    pub listeners: &'a [OwnedFd],
    /// Becomes standard output and standard error, which are the master's otherwise.
    pub output: Option<BorrowedFd<'a>>,
}

impl Descriptors<'_> {
    /// The slots that they take from [`protocol::LISTEN`] on. The output has one on its way.
    fn slots(&self) -> usize {
        self.listeners.len() + usize::from(self.output.is_some())
    }
}

/// A child that was started.
#[derive(Debug)]
pub struct Spawned {
    pub pid: i32,
    /// Why the program could not be run; the child then ends with status 1 by itself.
    pub exec_error: Option<io::Error>,
}

/// Starts children one at a time.
#[derive(Debug)]
pub struct Spawner {
    /// /dev/null, which holds the slots that no child is being given.
    null: OwnedFd,
    stack: Stack,
    /// Whether the kernel has `CLOSE_RANGE_UNSHARE` (Linux 5.9).
    close_range: bool,
}

impl Spawner {
    /// The first descriptor that is no child's.
    pub const END: RawFd = protocol::LISTEN + LISTENERS_MAX as RawFd;

    /// Takes the descriptors from 3 on, which must be free, for the children's.
    ///
    /// # Errors
    /// The system's: descriptors or memory have run out, or the limit on descriptors is too low.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            null: process::reserve_descriptors(protocol::FLOW_READ, Self::END)?,
            stack: Stack::new()?,
            close_range: true,
        })
    }

    /// Puts the flow pipe where all children will have it.
    ///
    /// # Errors
    /// The system's.
    pub fn set_flow_pipe(&mut self, read: OwnedFd, write: OwnedFd) -> io::Result<()> {
        process::place(read.as_raw_fd(), protocol::FLOW_READ, 0)?;
        process::place(write.as_raw_fd(), protocol::FLOW_WRITE, 0)
    }

    /// Starts a child.
    ///
    /// # Errors
    /// The system's, when there is no room for another process or too many listeners were given.
    pub fn spawn(
        &mut self,
        program: &Program,
        environment: &mut Environment,
        generation: u32,
        descriptors: Descriptors<'_>,
    ) -> io::Result<Spawned> {
        if descriptors.slots() > LISTENERS_MAX {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        let end = protocol::LISTEN + descriptors.slots() as RawFd;
        let output = descriptors.output.map(|_| end - 1);
        let placed = self.place(descriptors);
        let spawned = placed.and_then(|()| {
            let envp = environment.with_generation(generation);
            self.clone_and_exec(program, envp, end, output)
        });
        // A listener that stayed in its slot would stay open when its service is removed.
        for slot in protocol::STATUS..end {
            process::place(self.null.as_raw_fd(), slot, libc::O_CLOEXEC)?;
        }
        spawned
    }

    fn place(&self, descriptors: Descriptors<'_>) -> io::Result<()> {
        process::place(descriptors.status.as_raw_fd(), protocol::STATUS, 0)?;
        for (slot, listener) in (protocol::LISTEN..).zip(descriptors.listeners) {
            process::place(listener.as_raw_fd(), slot, 0)?;
        }
        if let Some(output) = descriptors.output {
            let slot = protocol::LISTEN + descriptors.listeners.len() as RawFd;
            process::place(output.as_raw_fd(), slot, 0)?;
        }
        Ok(())
    }

    fn clone_and_exec(
        &mut self,
        program: &Program,
        envp: *const *const libc::c_char,
        end: RawFd,
        output: Option<RawFd>,
    ) -> io::Result<Spawned> {
        let mut task = Task {
            path: program.path.as_ptr(),
            argv: program.argv.pointers.as_ptr(),
            envp,
            end: end as u32,
            output,
            close_range: self.close_range,
            lacks_close_range: false,
            error: 0,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
        let mut mask = SigSet::empty();
        sigprocmask(
            SigmaskHow::SIG_SETMASK,
            Some(&SigSet::all()),
            Some(&mut mask),
        )?;
        // SAFETY: the child runs `child` on a stack of its own, big enough for it, and this thread
        // does not go on before the child has left this memory by execve() or _exit(); so `task`
        // and all that it points to outlive the child's use of them, and nobody else looks on.
        let pid = unsafe { libc::clone(child, self.stack.top(), flags, (&raw mut task).cast()) };
        let error = io::Error::last_os_error();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
        if pid < 0 {
            return Err(error);
        }
        self.close_range &= !task.lacks_close_range;
        Ok(Spawned {
            pid,
            exec_error: (task.error != 0).then(|| io::Error::from_raw_os_error(task.error)),
        })
    }
}

/// What the child has to do, and where it says how that went.
struct Task {
    path: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    /// The first descriptor that is not the child's.
    end: u32,
    output: Option<RawFd>,
    close_range: bool,
    lacks_close_range: bool,
    error: i32,
}

/// The child, from clone() to execve(): system calls only, in the master's memory.
extern "C" fn child(task: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `task` is the parent's, which waits; the calls below allocate nothing, take no lock
    // and run no code that was registered elsewhere. Handlers of the master are not inherited
    // through execve(), and no signal comes before the mask is emptied, after which the only
    // meanings are the default and, for SIGPIPE, none.
    unsafe {
        let task = &mut *task.cast::<Task>();
        if task.close_range
            && libc::close_range(task.end, u32::MAX, libc::CLOSE_RANGE_UNSHARE as _) < 0
        {
            // An old kernel, or a sandbox that does not know the call. execve() itself gives the
            // child a table of its own and closes what is marked for it, which is all but ours;
            // it only copies more.
            task.lacks_close_range = true;
        }
        let shares = task.lacks_close_range || !task.close_range;
        if let Some(output) = task.output {
            // The master's own output is not to be replaced.
            if shares && libc::unshare(libc::CLONE_FILES) < 0
                || libc::dup2(output, libc::STDOUT_FILENO) < 0
                || libc::dup2(output, libc::STDERR_FILENO) < 0
            {
                task.error = *libc::__errno_location();
                libc::_exit(1)
            }
            libc::close(output);
        }
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        libc::execve(task.path, task.argv, task.envp);
        task.error = *libc::__errno_location();
        libc::_exit(1)
    }
}

/// Memory for the child's stack, with a page below it that nobody may touch.
#[derive(Debug)]
struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, which overlaps nothing.
        let base = unsafe { libc::mmap(ptr::null_mut(), STACK, access, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self(base);
        // SAFETY: the lowest page of the mapping just made.
        if unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Stacks grow downwards, and mappings end on a page, so the top is aligned.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping that new() made; no child uses it, as spawn() waits for each.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;
    use std::io::Read;
    use std::os::fd::AsFd;

    /// Slots are a matter of the whole process, so that each of these tests has one of its own.
    fn in_own_process(test: &str) -> bool {
        let own = testing::in_own_process(&format!("sys::spawn::tests::{test}"));
        if own {
            // SAFETY: this process has one test, which owns nothing yet.
            unsafe { process::close_range(3, RawFd::MAX) };
        }
        own
    }

    fn shell(script: &str) -> Program {
        let strings = ["sh", "-c", script].map(|s| CString::new(s).unwrap());
        Program::new(c"/bin/sh".to_owned(), strings.to_vec())
    }

    /// What a child prints on its first listener, which is a pipe here.
    fn output(spawner: &mut Spawner, script: &str, listeners: usize) -> String {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut given = vec![write];
        given.extend((1..listeners).map(|_| OwnedFd::from(null.try_clone().unwrap())));
        let mut environment = Environment::new(vec![c"A=b".to_owned()]);
        let descriptors = Descriptors {
            status: null.as_fd(),
            listeners: &given,
            output: None,
        };
        let program = shell(script);
        let spawned = spawner.spawn(&program, &mut environment, 0o755, descriptors);
        let spawned = spawned.unwrap();
        assert!(spawned.exec_error.is_none());
        drop(given);
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        while process::reap_any().is_none() {
            std::thread::yield_now();
        }
        text
    }

    const FACTS: &str = "{ echo $(ls /proc/self/fd); env; cat /proc/self/status; } >&6";

    fn assert_facts(facts: &str) {
        let mut lines = facts.lines();
        // 7 and 8 are listeners; ls has the highest number, its own directory, open for itself.
        assert!(
            lines.next().unwrap().starts_with("0 1 2 3 4 5 6 7 8 9"),
            "{facts}"
        );
        assert!(!facts.lines().next().unwrap().contains("10"), "{facts}");
        for line in ["A=b", "GENERATION=755"] {
            assert!(lines.clone().any(|l| l == line), "{line} in {facts}");
        }
        let line = |name: &str| lines.clone().find(|l| l.starts_with(name)).unwrap();
        assert!(line("SigBlk:").ends_with("0000000000000000"), "{facts}");
        let ignored = line("SigIgn:").trim_start_matches("SigIgn:").trim();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        // 32 and 33 belong to the C library, which lets nobody reset them.
        let library = (1 << 31) | (1 << 32);
        assert_eq!(ignored & !library, 1 << (libc::SIGPIPE - 1), "{facts}");
    }

    #[test]
    fn a_child_has_its_descriptors_its_environment_and_default_signals() {
        if in_own_process("a_child_has_its_descriptors_its_environment_and_default_signals") {
            crate::sys::signal::reset().unwrap();
            let mut spawner = Spawner::new().unwrap();
            let (read, write) = process::flow_pipe().unwrap();
            spawner.set_flow_pipe(read, write).unwrap();
            let _many: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null")).collect();
            assert_facts(&output(&mut spawner, FACTS, 3));
            assert!(spawner.close_range, "this kernel has it");
            // What a kernel without CLOSE_RANGE_UNSHARE makes of it.
            spawner.close_range = false;
            assert_facts(&output(&mut spawner, FACTS, 3));
        }
    }

    #[test]
    fn slots_are_given_back() {
        if in_own_process("slots_are_given_back") {
            let mut spawner = Spawner::new().unwrap();
            assert_eq!(output(&mut spawner, "echo here >&6", 3), "here\n");
            for slot in protocol::STATUS..protocol::LISTEN + 3 {
                let file = std::fs::read_link(format!("/proc/self/fd/{slot}")).unwrap();
                assert_eq!(file, std::path::Path::new("/dev/null"), "slot {slot}");
            }
        }
    }

    #[test]
    fn a_program_that_cannot_run_is_told_of_and_ends_with_status_one() {
        if in_own_process("a_program_that_cannot_run_is_told_of_and_ends_with_status_one") {
            let mut spawner = Spawner::new().unwrap();
            let program = Program::new(c"/no/such/program".to_owned(), vec![c"x".to_owned()]);
            let mut environment = Environment::new(Vec::new());
            // SAFETY: standard error stays open.
            let status = unsafe { BorrowedFd::borrow_raw(2) };
            let descriptors = Descriptors {
                status,
                listeners: &[],
                output: None,
            };
            let spawned = spawner.spawn(&program, &mut environment, 1, descriptors);
            let spawned = spawned.unwrap();
            let error = spawned.exec_error.expect("an error");
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let dead = loop {
                match process::reap_any() {
                    Some(dead) => break dead,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(dead.pid, spawned.pid);
            assert_eq!(dead.end, process::End::Code(1));
        }
    }

    /// What a child prints on its standard output and error, through a pipe that is all it gets.
    fn printed(spawner: &mut Spawner) -> String {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let mut read = std::fs::File::from(read);
        let null = std::fs::File::open("/dev/null").unwrap();
        let mut environment = Environment::new(Vec::new());
        let descriptors = Descriptors {
            status: null.as_fd(),
            listeners: &[],
            output: Some(write.as_fd()),
        };
        let program = shell("echo to one; echo to two >&2; echo $(ls /proc/self/fd)");
        let spawned = spawner.spawn(&program, &mut environment, 1, descriptors);
        assert!(spawned.unwrap().exec_error.is_none());
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        while process::reap_any().is_none() {
            std::thread::yield_now();
        }
        text
    }

    #[test]
    fn what_a_child_prints_goes_where_it_was_told_and_the_masters_output_stays() {
        if in_own_process("what_a_child_prints_goes_where_it_was_told_and_the_masters_output_stays")
        {
            let own =
                || [1, 2].map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap());
            let before = own();
            let mut spawner = Spawner::new().unwrap();
            for close_range in [true, false] {
                spawner.close_range = close_range;
                let text = printed(&mut spawner);
                // 3 is what ls itself has open; 4 is the flow pipe's, and 5 the status channel.
                assert!(text.starts_with("to one\nto two\n0 1 2 "), "{text}");
                assert!(!text.contains(" 6"), "{text}");
                assert_eq!(own(), before);
            }
        }
    }

    #[test]
    fn signals_are_as_before_after_a_spawn() {
        if in_own_process("signals_are_as_before_after_a_spawn") {
            let mut spawner = Spawner::new().unwrap();
            let before = SigSet::thread_get_mask().unwrap();
            output(&mut spawner, "true", 1);
            assert_eq!(SigSet::thread_get_mask().unwrap(), before);
        }
    }

    #[test]
    fn more_listeners_than_slots_are_refused() {
        if in_own_process("more_listeners_than_slots_are_refused") {
            let mut spawner = Spawner::new().unwrap();
            let null = std::fs::File::open("/dev/null").unwrap();
            let many = (0..=LISTENERS_MAX).map(|_| OwnedFd::from(null.try_clone().unwrap()));
            let many: Vec<_> = many.collect();
            let descriptors = Descriptors {
                status: null.as_fd(),
                listeners: &many,
                output: None,
            };
            let mut environment = Environment::new(Vec::new());
            let spawned = spawner.spawn(&shell("true"), &mut environment, 1, descriptors);
            assert_eq!(spawned.unwrap_err().raw_os_error(), Some(libc::E2BIG));
        }
    }
}
