//! A child that holds the lock of what it shares with the master: a system call reads a page of
//! memory which never comes, because userfaultfd(2) has it and no process answers. A file of a FUSE file
//! system that is mapped would do the same.
//!
//! `hold call=CALL sign=PATH` makes the call, and creates the file PATH once the call waits. Then it
//! waits for its own end, and does not leave when it is told to.
//!
//! CALL is `shutdown`, which shuts the listener down before; `options` of the listener; `queue`, the
//! next datagram; `order`, the same as `shutdown` in the child of an ordered pool; `output`, standard
//! output, while another thread floods it; `passed`, what a wake-up of a service of type pass passes,
//! and closes the connection then; or the path of a fifo.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::exit;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use master::protocol::pool::Report;
use master::protocol::{LISTEN, STATUS};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, Shutdown, accept, recvmsg, shutdown};
use nix::unistd::{alarm, getpid, gettid};

/// The largest time for a test, in seconds: nothing is left behind.
const LIFE: u32 = 60;
const PAGE: usize = 4096;

fn main() -> Result<()> {
    alarm::set(LIFE);
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn)? };
    let option = |name: &str| {
        let mut all = std::env::args();
        all.find_map(|argument| argument.strip_prefix(name).map(str::to_owned))
            .with_context(|| format!("{name}... is needed"))
    };
    let (call, sign) = (option("call=")?, option("sign=")?);
    let page = Missing::page()?;
    if call == "order" {
        let idle = Report::Idle.encode(getpid().as_raw());
        // SAFETY: the master opened it for this process, which never closes it.
        let channel = ManuallyDrop::new(unsafe { File::from_raw_fd(STATUS) });
        io::Write::write_all(&mut &*channel, &idle)?;
    }
    if call == "output" {
        thread::spawn(|| {
            loop {
                println!("{}", "x".repeat(PAGE - 1));
            }
        });
    }
    let mut connection = None;
    let mut passed = -1;
    if call == "passed" {
        let client = accept_blocking(LISTEN)?;
        passed = receive_descriptor(client)?;
        connection = Some(client);
    }
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let _ = tell.send(gettid());
        let result = hold(&call, page, passed);
        eprintln!("{call} came to an end: {result:?}");
        exit(1)
    });
    let thread = told.recv()?;
    // The function of the kernel in which it waits.
    let place = format!("/proc/self/task/{thread}/wchan");
    while !fs::read_to_string(&place)?.contains("userfault") {
        thread::sleep(Duration::from_millis(1));
    }
    if let Some(connection) = connection {
        nix::unistd::close(connection)?;
    }
    File::create(sign)?;
    loop {
        thread::park();
    }
}

fn hold(call: &str, page: Missing, passed: RawFd) -> Result<isize> {
    let file;
    Ok(match call {
        "shutdown" | "order" => {
            shutdown(LISTEN, Shutdown::Both)?;
            page.set_options(LISTEN)
        }
        "options" => page.set_options(LISTEN),
        "queue" => page.receive(LISTEN),
        "passed" => page.read(passed),
        "output" => page.write(libc::STDOUT_FILENO),
        path => {
            let mut options = OpenOptions::new();
            options.write(true).custom_flags(libc::O_NONBLOCK);
            file = options.open(path)?;
            page.write(file.as_raw_fd())
        }
    })
}

/// The next connection.
fn accept_blocking(listener: RawFd) -> Result<RawFd> {
    loop {
        match accept(listener) {
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(1)),
            accepted => return Ok(accepted?),
        }
    }
}

/// The descriptor that comes with the next byte.
fn receive_descriptor(connection: RawFd) -> Result<RawFd> {
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::empty();
    let message = recvmsg::<()>(connection, &mut bytes, Some(&mut space), flags)?;
    let descriptor = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(all) => all.first().copied(),
        _ => None,
    });
    descriptor.context("a descriptor")
}

/// A page of memory that never comes.
#[derive(Clone, Copy)]
struct Missing(usize);

// Linux, include/uapi/linux/userfaultfd.h
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

impl Missing {
    fn page() -> Result<Self> {
        // SAFETY: the calls get structures of their own, as the header says, and a mapping that stays
        // for the life of the process and that no Rust code reads.
        unsafe {
            let fd = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) as RawFd;
            ensure!(fd >= 0, "userfaultfd: {}", io::Error::last_os_error());
            let mut api = [UFFD_API, 0, 0];
            ensure!(libc::ioctl(fd, UFFDIO_API, api.as_mut_ptr()) == 0);
            let page = libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            ensure!(page != libc::MAP_FAILED);
            let mut register = [page as u64, PAGE as u64, UFFDIO_REGISTER_MODE_MISSING, 0];
            ensure!(libc::ioctl(fd, UFFDIO_REGISTER, register.as_mut_ptr()) == 0);
            Ok(Self(page as usize))
        }
    }

    fn set_options(self, socket: RawFd) -> isize {
        // SAFETY: the kernel reads from the page, which is this process's.
        unsafe {
            libc::setsockopt(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, self.0 as _, 40) as isize
        }
    }

    fn receive(self, socket: RawFd) -> isize {
        // SAFETY: the kernel writes to the page, which is this process's.
        unsafe { libc::recv(socket, self.0 as _, PAGE, 0) }
    }

    fn read(self, fd: RawFd) -> isize {
        // SAFETY: the kernel writes to the page, which is this process's.
        unsafe { libc::read(fd, self.0 as _, PAGE) }
    }

    fn write(self, fd: RawFd) -> isize {
        // SAFETY: the kernel reads from the page, which is this process's.
        unsafe { libc::write(fd, self.0 as _, PAGE) }
    }
}
