//! Children whose first line is `PID ALARM`: the process ID, and the seconds until an alarm that
//! was set before the program began.
//!
//! Without one of the following arguments, a child serves one client and leaves, so that each
//! client needs a start. With `serve` it serves one client after the other: it executes each line
//! of the client and answers `done`, until the client disconnects. The lines are `shutdown` and
//! `stop-reading`, which shut the listener down; `connect`, which makes a connection of a TCP
//! listener, one with an error that stays; `wait`, which waits for the channel in 100,000 ways and
//! reports without end; and any other, which does nothing. With `ordered`
//! it serves as a child of an ordered pool.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::mem::ManuallyDrop;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, FromRawFd};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use master::protocol::pool::{Order, Report, SIZE};
use master::protocol::{GENERATION, LISTEN, STATUS, StatusReport};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    MsgFlags, Shutdown, SockaddrStorage, TimestampingFlag, accept, connect, send, setsockopt,
    shutdown, sockopt,
};
use nix::unistd::{alarm, dup, getpid};

/// The interval at which a child retries a listener that was shut down.
const PAUSE: Duration = Duration::from_millis(10);

fn main() -> Result<()> {
    let alarm = alarm::cancel().unwrap_or(0);
    let given = |name: &str| std::env::args().any(|argument| argument == name);
    if given("ordered") {
        return obey(alarm);
    }
    loop {
        let Some(client) = next_client()? else {
            return Ok(());
        };
        // If the master no longer reads, the next poll of the channel shows it.
        let _ = report(0);
        let _ = attend(client, alarm, given("serve"));
        if !given("serve") {
            return Ok(());
        }
        let _ = report(1);
    }
}

/// The next client of a shared listener; `None` when the child is told to leave.
fn next_client() -> Result<Option<File>> {
    // SAFETY: the master opened both for this process, which never closes them.
    let [status, listener] = unsafe { [STATUS, LISTEN].map(|fd| BorrowedFd::borrow_raw(fd)) };
    loop {
        let mut ready = [status, listener].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        poll(&mut ready, PollTimeout::NONE)?;
        if ready[0].any() == Some(true) {
            return Ok(None);
        }
        match accept(LISTEN) {
            // SAFETY: accept(2) has just returned it, so nothing else owns it.
            Ok(client) => return Ok(Some(unsafe { File::from_raw_fd(client) })),
            // The listener was shut down: it may listen again later.
            Err(Errno::EINVAL) => sleep(PAUSE),
            Err(Errno::EAGAIN | Errno::ECONNABORTED) => {}
            Err(why) => return Err(why.into()),
        }
    }
}

/// Serves as the master orders.
fn obey(alarm: u32) -> Result<()> {
    // SAFETY: the master opened it for this process, which never closes it.
    let mut channel = ManuallyDrop::new(unsafe { File::from_raw_fd(STATUS) });
    let own = getpid().as_raw();
    channel.write_all(&Report::Idle.encode(own))?;
    loop {
        let mut order = [0; SIZE];
        if channel.read_exact(&mut order).is_err() {
            return Ok(());
        }
        if Order::decode(order) != Some(Order::Accept) {
            continue;
        }
        let client = accept(LISTEN);
        channel.write_all(&Report::Busy.encode(own))?;
        if let Ok(client) = client {
            // SAFETY: accept(2) has just returned it, so nothing else owns it.
            let _ = attend(unsafe { File::from_raw_fd(client) }, alarm, true);
        }
        channel.write_all(&Report::Idle.encode(own))?;
    }
}

fn attend(mut client: File, alarm: u32, stays: bool) -> Result<()> {
    writeln!(client, "{} {alarm}", getpid())?;
    let lines = BufReader::new(client.try_clone()?).lines();
    for line in lines.take_while(|_| stays) {
        match line?.trim_end() {
            "shutdown" => shutdown(LISTEN, Shutdown::Both)?,
            "stop-reading" => shutdown(LISTEN, Shutdown::Read)?,
            "connect" => connect_listener()?,
            "wait" => wait_and_report()?,
            _ => {}
        }
        client.write_all(b"done\n")?;
    }
    Ok(())
}

/// Sent data with a time stamp leave the stamp in the queue of errors.
fn connect_listener() -> Result<()> {
    // SAFETY: the master opened it for this process, which never closes it.
    let listener = unsafe { BorrowedFd::borrow_raw(LISTEN) };
    let other = TcpListener::bind("127.0.0.1:0")?;
    let address = SockaddrStorage::from(other.local_addr()?);
    let stamps = TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE;
    let stamps = stamps | TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE;
    setsockopt(&listener, sockopt::Timestamping, &stamps)?;
    shutdown(LISTEN, Shutdown::Read)?;
    match connect(LISTEN, &address) {
        Ok(()) | Err(Errno::EINPROGRESS) => {}
        Err(why) => return Err(why.into()),
    }
    // It stays.
    std::mem::forget(other.accept()?);
    send(LISTEN, b"x", MsgFlags::empty())?;
    Ok(())
}

/// The kernel walks through all epoll(7) waiters for each report that the master reads.
fn wait_and_report() -> Result<()> {
    const DUPLICATES: u64 = 1_000;
    const SETS: usize = 100;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let sets = (0..SETS).map(|_| Epoll::new(EpollCreateFlags::empty()));
    let sets = sets.collect::<nix::Result<Vec<_>>>()?;
    // SAFETY: the master opened it for this process, which never closes it.
    let channel = unsafe { BorrowedFd::borrow_raw(STATUS) };
    let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
    for _ in 0..DUPLICATES {
        // They stay.
        let duplicate = ManuallyDrop::new(dup(channel)?);
        for set in &sets {
            set.add(&*duplicate, EpollEvent::new(flags, 0))?;
        }
    }
    loop {
        report(0)?;
        report(1)?;
    }
}

fn report(available: i32) -> Result<()> {
    let report = StatusReport {
        pid: getpid().as_raw(),
        generation: u32::from_str_radix(&std::env::var(GENERATION)?, 8)?,
        available,
    };
    // SAFETY: the master opened it for this process, which never closes it.
    let mut channel = ManuallyDrop::new(unsafe { File::from_raw_fd(STATUS) });
    Ok(channel.write_all(&report.encode())?)
}
