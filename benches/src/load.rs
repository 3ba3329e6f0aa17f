//! Clients. Several run at a time; each waits for the first byte and then for the end of file.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// The clients' measurements.
pub struct Load {
    pub elapsed: Duration,
    /// The time from connect(2) to the first byte, in ascending order.
    pub first_bytes: Vec<Duration>,
}

impl Load {
    pub fn rate(&self) -> f64 {
        self.first_bytes.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The median time to the first byte.
    pub fn median_wait(&self) -> Duration {
        self.first_bytes[self.first_bytes.len() / 2]
    }

    pub fn longest_wait(&self) -> Duration {
        self.first_bytes[self.first_bytes.len() - 1]
    }
}

/// Makes `connections` connections to a path, `clients` at a time.
pub fn run(socket: &Path, connections: usize, clients: usize) -> Result<Load> {
    run_visits(connections, clients, || visit(socket))
}

/// Makes `connections` visits, `clients` at a time.
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

/// Visits a server that echoes.
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

/// Visits a server that greets its clients, and closes the connection of a client that sends
/// nothing more.
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

/// Visits a server and returns the time to the first byte.
pub fn visit(socket: &Path) -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.read_exact(&mut [0])?;
    let wait = begin.elapsed();
    stream.read_to_end(&mut Vec::new())?;
    Ok(wait)
}

/// Connects `clients` clients, each with its own child.
pub fn hold(socket: &Path, clients: usize) -> Result<Vec<UnixStream>> {
    let client = |_| {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.read_exact(&mut [0])?;
        Ok(stream)
    };
    (0..clients).map(client).collect()
}

/// Runs `work` while a service has one client after the other.
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
