//! Clients, as many at a time as are asked for, each waiting for the first byte and then the end.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// What the clients have seen.
pub struct Load {
    pub elapsed: Duration,
    /// From connect(2) to the first byte, in ascending order.
    pub first_bytes: Vec<Duration>,
}

impl Load {
    pub fn rate(&self) -> f64 {
        self.first_bytes.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The wait of the client that half of the others had to wait longer than.
    pub fn median_wait(&self) -> Duration {
        self.first_bytes[self.first_bytes.len() / 2]
    }

    pub fn longest_wait(&self) -> Duration {
        self.first_bytes[self.first_bytes.len() - 1]
    }
}

/// So many connections to a path in all, by so many clients.
pub fn run(socket: &Path, connections: usize, clients: usize) -> Result<Load> {
    run_visits(connections, clients, || visit(socket))
}

/// So many visits in all, by so many clients.
pub fn run_visits(
    connections: usize,
    clients: usize,
    visit: impl Fn() -> Result<Duration> + Sync,
) -> Result<Load> {
    let started = AtomicUsize::new(0);
    let begin = Instant::now();
    let client = || {
        let mut waits = Vec::with_capacity(connections / clients * 2);
        while started.fetch_add(1, Ordering::Relaxed) < connections {
            waits.push(visit()?);
        }
        anyhow::Ok(waits)
    };
    let all = thread::scope(|scope| {
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        let ends = threads.into_iter().map(|thread| {
            let waits = thread.join();
            waits.map_err(|_| anyhow!("a client panicked"))?
        });
        ends.collect::<Result<Vec<_>>>()
    })?;
    let elapsed = begin.elapsed();
    let mut first_bytes = all.concat();
    first_bytes.sort_unstable();
    Ok(Load {
        elapsed,
        first_bytes,
    })
}

/// A visit to a server that gives back what it is given.
pub fn echo(address: SocketAddr) -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"hello\r\n")?;
    stream.read_exact(&mut [0])?;
    let wait = begin.elapsed();
    stream.shutdown(Shutdown::Write)?;
    stream.read_to_end(&mut Vec::new())?;
    Ok(wait)
}

/// A visit to a server that has something to say to whoever comes, and to who says nothing no more.
pub fn greeting(address: SocketAddr) -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    let wait = begin.elapsed();
    stream.read_to_end(&mut Vec::new())?;
    Ok(wait)
}

/// One client's visit, and how long its first byte took.
pub fn visit(socket: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.read_exact(&mut [0])?;
    let wait = begin.elapsed();
    stream.read_to_end(&mut Vec::new())?;
    Ok(wait)
}

/// So many clients, each with a child of its own.
pub fn hold(socket: &Path, clients: usize) -> Result<Vec<UnixStream>> {
    let client = |_| {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    };
    (0..clients).map(client).collect()
}

/// Does some work while a service has one client after the other.
pub fn while_visited(socket: &Path, work: impl FnOnce() -> Result<()>) -> Result<Load> {
    let done = AtomicBool::new(false);
    let begin = Instant::now();
    let visitor = || {
        let mut waits = vec![visit(socket)?];
        while !done.load(Ordering::Relaxed) {
            waits.push(visit(socket)?);
        }
        waits.sort_unstable();
        anyhow::Ok(waits)
    };
    thread::scope(|scope| {
        let visitor = scope.spawn(visitor);
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let waits = visitor.join().map_err(|_| anyhow!("a visitor panicked"))?;
        worked?;
        Ok(Load {
            elapsed: begin.elapsed(),
            first_bytes: waits?,
        })
    })
}
