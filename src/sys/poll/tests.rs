//! What is expected of a poller, of Linux's and of the one for other systems.

use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// No event is expected to take this long.
const LIMIT: Duration = Duration::from_secs(10);
/// More than any of these tests has ready.
const TURN: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");

/// The same tests for a poller; each has its own `Poller`, which they are written for.
macro_rules! tests_of {
    ($name:ident) => {
        mod $name {
            use super::super::$name::Poller;
            use super::*;

            fn ready(poller: &mut Poller, timeout: Duration) -> Vec<usize> {
                let mut keys = Vec::new();
                poller.wait(timeout, &mut keys).unwrap();
                keys.sort_unstable();
                keys
            }

            #[test]
            fn what_was_not_read_is_reported_again() {
                let mut poller = Poller::new(TURN).unwrap();
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
                let mut outer = Poller::new(TURN).unwrap();
                let mut inner = Poller::new(TURN).unwrap();
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
                let mut poller = Poller::new(TURN).unwrap();
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                poller.add(ours.as_fd(), 7, Interest::Readable).unwrap();
                theirs.write_all(b"x").unwrap();
                poller.close(ours);
                assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
            }

            #[test]
            fn a_peer_that_is_gone_is_reported() {
                let mut poller = Poller::new(TURN).unwrap();
                let (ours, theirs) = UnixStream::pair().unwrap();
                poller.add(ours.as_fd(), 7, Interest::Readable).unwrap();
                drop(theirs);
                assert_eq!(ready(&mut poller, LIMIT), [7]);
            }

            #[test]
            fn interest_can_change() {
                let mut poller = Poller::new(TURN).unwrap();
                let (ours, _theirs) = UnixStream::pair().unwrap();
                poller.add(ours.as_fd(), 1, Interest::Readable).unwrap();
                assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
                poller.modify(ours.as_fd(), 2, Interest::Writable).unwrap();
                assert_eq!(ready(&mut poller, LIMIT), [2]);
            }

            #[test]
            fn what_nobody_is_interested_in_waits_until_somebody_is() {
                let mut poller = Poller::new(TURN).unwrap();
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                theirs.write_all(b"x").unwrap();
                poller.add(ours.as_fd(), 1, Interest::Nothing).unwrap();
                assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
                poller.modify(ours.as_fd(), 1, Interest::Readable).unwrap();
                assert_eq!(ready(&mut poller, LIMIT), [1]);
            }

            #[test]
            fn what_is_waited_for_once_is_reported_once_each_time() {
                let mut poller = Poller::new(TURN).unwrap();
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
            fn of_arrivals_only_the_next_is_reported_unless_it_is_asked_again() {
                let mut poller = Poller::new(TURN).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let fd = listener.as_fd();
                poller.add(fd, 1, Interest::Arrivals).unwrap();
                let _clients = [(); 3].map(|()| {
                    let client = connect();
                    assert_eq!(ready(&mut poller, LIMIT), [1]);
                    assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
                    client
                });
                poller.modify(fd, 1, Interest::Arrivals).unwrap();
                assert_eq!(ready(&mut poller, LIMIT), [1]);
            }

            #[test]
            fn what_was_removed_is_not_reported_and_may_come_again() {
                let mut poller = Poller::new(TURN).unwrap();
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                theirs.write_all(b"x").unwrap();
                poller.add(ours.as_fd(), 1, Interest::Readable).unwrap();
                poller.remove(ours.as_fd()).unwrap();
                assert_eq!(ready(&mut poller, Duration::ZERO), [0; 0]);
                poller.add(ours.as_fd(), 2, Interest::Readable).unwrap();
                assert_eq!(ready(&mut poller, LIMIT), [2]);
                let twice = poller.add(ours.as_fd(), 3, Interest::Readable);
                assert_eq!(twice.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            }

            #[test]
            fn a_turn_takes_so_many_and_the_next_one_takes_the_others() {
                let mut poller = Poller::new(TURN).unwrap();
                let pairs = [(); 6].map(|()| UnixStream::pair().unwrap());
                for (key, (ours, theirs)) in pairs.iter().enumerate() {
                    poller.add(ours.as_fd(), key, Interest::Readable).unwrap();
                    (&mut &*theirs).write_all(b"x").unwrap();
                }
                let first = ready(&mut poller, LIMIT);
                assert_eq!(first.len(), TURN.get());
                for key in first {
                    poller.remove(pairs[key].0.as_fd()).unwrap();
                }
                assert_eq!(ready(&mut poller, LIMIT).len(), 2);
            }

            #[test]
            fn a_wait_ends_at_its_time_and_not_before() {
                let mut poller = Poller::new(TURN).unwrap();
                let timeout = Duration::from_micros(1_500);
                let begin = Instant::now();
                assert_eq!(ready(&mut poller, timeout), [0; 0]);
                assert!(begin.elapsed() >= timeout);
            }
        }
    };
}

#[cfg(target_os = "linux")]
tests_of!(epoll);
tests_of!(portable);
