//! TCP connections whose last close takes time: SO_LINGER is on, and they have data that the other
//! end does not read. The helper program `burden` has this file, too.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// How many connections are sent at a time.
const NUMBER: usize = 3;

/// For how many seconds a close waits.
const LINGER: i32 = 30;

/// A connection is full when nothing could be written to it for this time.
const FULL: Duration = Duration::from_millis(50);

/// Connections to an address, full.
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
