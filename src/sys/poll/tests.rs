//! What the master expects of its poller.

use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// No event is expected to take this long.
const LIMIT: Duration = Duration::from_secs(10);

fn ready(poller: &mut Poll, timeout: Duration) -> Vec<usize> {
    let mut found = Vec::new();
    poller.wait(timeout, &mut found).unwrap();
    let mut keys: Vec<_> = found.iter().map(|ready| ready.key).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn what_was_not_read_is_reported_again() {
    let mut poller = Poll::new().unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    poller.add(ours.as_fd(), 7, Interest::Readable).unwrap();
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
    theirs.write_all(b"x").unwrap();
    for _ in 0..3 {
        assert_eq!(ready(&mut poller, LIMIT), [7]);
    }
    ours.read_exact(&mut [0]).unwrap();
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
}

#[test]
fn a_poller_is_ready_for_another_while_something_is_for_it() {
    let mut outer = Poll::new().unwrap();
    let mut inner = Poll::new().unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    inner.add(ours.as_fd(), 7, Interest::Readable).unwrap();
    outer.add(inner.as_fd(), 8, Interest::Readable).unwrap();
    assert_eq!(ready(&mut outer, Duration::ZERO), [0; 0]);
    theirs.write_all(b"x").unwrap();
    assert_eq!(ready(&mut outer, LIMIT), [8]);
    assert_eq!(ready(&mut inner, LIMIT), [7]);
    assert_eq!(ready(&mut outer, LIMIT), [8], "it was not read");
    ours.read_exact(&mut [0]).unwrap();
    assert_eq!(ready(&mut outer, Duration::ZERO), [0; 0]);
}

#[test]
fn what_was_closed_is_not_reported() {
    let mut poller = Poll::new().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    poller.add(ours.as_fd(), 7, Interest::Readable).unwrap();
    theirs.write_all(b"x").unwrap();
    poller.remove(&ours).unwrap();
    drop(ours);
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
}

#[test]
fn a_peer_that_is_gone_is_reported() {
    let mut poller = Poll::new().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    poller.add(ours.as_fd(), 7, Interest::Readable).unwrap();
    drop(theirs);
    assert_eq!(ready(&mut poller, LIMIT), [7]);
}

#[test]
fn interest_can_change() {
    let mut poller = Poll::new().unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    poller.add(ours.as_fd(), 1, Interest::Readable).unwrap();
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
    poller.modify(ours.as_fd(), 2, Interest::Writable).unwrap();
    assert_eq!(ready(&mut poller, LIMIT), [2]);
}

#[test]
fn what_is_not_waited_for_is_reported_once_it_is() {
    let mut poller = Poll::new().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    poller.add(ours.as_fd(), 1, Interest::Hangup).unwrap();
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
    poller.modify(ours.as_fd(), 1, Interest::Readable).unwrap();
    assert_eq!(ready(&mut poller, LIMIT), [1]);
}

#[test]
fn what_is_waited_for_once_is_reported_once_each_time() {
    let mut poller = Poll::new().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    let once = Interest::ReadableOnce;
    poller.add(ours.as_fd(), 1, once).unwrap();
    for _ in 0..3 {
        assert_eq!(ready(&mut poller, LIMIT), [1]);
        assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
        poller.modify(ours.as_fd(), 1, once).unwrap();
    }
}

#[test]
fn what_was_removed_is_not_reported_and_may_come_again() {
    let mut poller = Poll::new().unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(b"x").unwrap();
    poller.add(ours.as_fd(), 1, Interest::Readable).unwrap();
    poller.remove(&ours).unwrap();
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
    poller.add(ours.as_fd(), 2, Interest::Readable).unwrap();
    assert_eq!(ready(&mut poller, LIMIT), [2]);
    let twice = poller.add(ours.as_fd(), 3, Interest::Readable);
    assert_eq!(twice.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn one_wait_takes_all_that_is_ready() {
    let mut poller = Poll::new().unwrap();
    let pairs = (0..300).map(|_| UnixStream::pair().unwrap());
    let pairs: Vec<_> = pairs.collect();
    for (key, (ours, theirs)) in pairs.iter().enumerate() {
        poller.add(ours.as_fd(), key, Interest::Readable).unwrap();
        (&mut &*theirs).write_all(b"x").unwrap();
    }
    assert_eq!(ready(&mut poller, LIMIT), (0..300).collect::<Vec<_>>());
}

#[test]
fn a_listener_that_was_shut_down_is_reported_although_it_is_not_waited_for() {
    let mut poller = Poll::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    poller.add(listener.as_fd(), 1, Interest::Hangup).unwrap();
    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
    let how = nix::sys::socket::Shutdown::Read;
    nix::sys::socket::shutdown(listener.as_raw_fd(), how).unwrap();
    let mut found = Vec::new();
    poller.wait(LIMIT, &mut found).unwrap();
    let hung_up = Ready {
        key: 1,
        hung_up: true,
    };
    assert_eq!(found, [hung_up]);
}

#[test]
fn a_wait_ends_at_its_time_and_not_before() {
    let mut poller = Poll::new().unwrap();
    let timeout = Duration::from_micros(1_500);
    let begin = Instant::now();
    assert_eq!(ready(&mut poller, timeout), [0; 0]);
    assert!(begin.elapsed() >= timeout);
}
