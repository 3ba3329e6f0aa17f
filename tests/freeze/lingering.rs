//! TCP connections whose last close blocks: SO_LINGER is on, and the other end does not read their
//! data. The helper program `burden` includes this file, too.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// The number of connections that are sent at once.
const NUMBER: usize = 3;

/// How long a close blocks, in seconds.
const LINGER: i32 = 30;

/// A connection is full when nothing could be written for this time.
const FULL: Duration = Duration::from_millis(50);

/// Opens connections to an address and fills them.
pub fn connections(address: &str) -> Result<Vec<TcpStream>> {
    (0..NUMBER).map(|_| connection(address)).collect()
}

fn connection(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    setsockopt(&stream, sockopt::SndBuf, &4096)?;
    let on = linger {
        l_onoff: 1,
        l_linger: LINGER,
    };
    setsockopt(&stream, sockopt::Linger, &on)?;
    stream.set_nonblocking(true)?;
    let mut last = Instant::now();
    while last.elapsed() < FULL {
        match stream.write(&[0; 4096]) {
            Ok(_) => last = Instant::now(),
            Err(why) if why.kind() == ErrorKind::WouldBlock => sleep(FULL / 10),
            Err(why) => return Err(why.into()),
        }
    }
    Ok(stream)
}
