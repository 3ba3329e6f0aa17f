//! Tests of listeners.

use super::*;
use crate::sys::testing::{SOON, in_own_process, lingering, send_descriptor};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::connect;
use std::time::Instant;

const RIGHTS: PathRights = PathRights {
    mode: 0o666,
    uid: None,
    gid: None,
};

const OPTIONS: TcpOptions = TcpOptions {
    backlog: 10,
    window: 0,
    missing: false,
    share: false,
};

fn tcp() -> Listener {
    inet("127.0.0.1:0".parse().unwrap(), OPTIONS).unwrap()
}

fn address_of(listener: &Listener) -> SocketAddr {
    let socket = std::net::TcpListener::from(listener.fd.try_clone().unwrap());
    socket.local_addr().unwrap()
}

fn flags(fd: &Listener) -> (OFlag, FdFlag) {
    let status = fcntl(fd, FcntlArg::F_GETFL).unwrap();
    let own = fcntl(fd, FcntlArg::F_GETFD).unwrap();
    (
        OFlag::from_bits_truncate(status),
        FdFlag::from_bits_truncate(own),
    )
}

fn assert_like_postfix(fd: &Listener) {
    let (status, own) = flags(fd);
    assert!(status.contains(OFlag::O_NONBLOCK | OFlag::O_RDWR));
    assert!(own.contains(FdFlag::FD_CLOEXEC));
}

#[test]
fn an_address_is_shared_only_if_that_is_wanted_and_never_with_another_user() {
    let first = tcp();
    assert_like_postfix(&first);
    assert!(getsockopt(&first, sockopt::ReusePort).unwrap());
    let address = address_of(&first);
    let shared = TcpOptions {
        share: true,
        ..OPTIONS
    };
    let taken = |address, options| inet(address, options).map_err(|error| error.kind());
    assert_eq!(
        taken(address, OPTIONS).err(),
        Some(io::ErrorKind::AddrInUse)
    );
    taken(address, shared).unwrap();
    let all = (std::net::Ipv4Addr::UNSPECIFIED, address.port()).into();
    assert_eq!(taken(all, OPTIONS).err(), Some(io::ErrorKind::AddrInUse));
    taken(all, shared).unwrap();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken(stranger.local_addr().unwrap(), shared);
    assert_eq!(taken.err(), Some(io::ErrorKind::AddrInUse));
}

#[test]
fn an_address_that_is_missing_is_bound_if_that_is_wanted() {
    let missing = TcpOptions {
        missing: true,
        ..OPTIONS
    };
    let mut addresses = vec!["192.0.2.7:0"];
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        addresses.push("[2001:db8::7]:0");
    }
    for address in addresses {
        let address = address.parse().unwrap();
        let refused = inet(address, OPTIONS).map_err(|error| error.kind());
        assert_eq!(refused.err(), Some(io::ErrorKind::AddrNotAvailable));
        assert!(inet(address, missing).unwrap().is_listening());
    }
}

#[test]
fn a_listener_that_is_shut_down_does_not_keep_its_address() {
    let first = tcp();
    let address = address_of(&first);
    let _client = std::net::TcpStream::connect(address).unwrap();
    let _connection = accept(&first.fd).unwrap();
    shutdown(first.fd.as_raw_fd(), Shutdown::Read).unwrap();
    inet(address, OPTIONS).unwrap();
}

fn client_of(listener: &Listener) -> io::Result<std::net::TcpStream> {
    std::net::TcpStream::connect(address_of(listener))
}

#[test]
fn a_listener_is_shut_down_for_children_unless_it_is_the_service_managers() {
    let own = tcp();
    let childs = own.try_clone().unwrap();
    own.give();
    close([own], SOON);
    assert!(!childs.is_listening());
    assert!(client_of(&childs).is_err());
    let done = childs.listen_again(10).unwrap();
    assert!(poll::wait_until_readable(done.as_fd(), SOON));
    assert!(client_of(&childs).is_ok());
    let managers = Listener::new(childs.fd, true);
    let childs = managers.try_clone().unwrap();
    managers.give();
    close([managers], SHUTDOWN_TIME);
    assert!(client_of(&childs).is_ok());
}

#[test]
fn connections_that_wait_are_counted() {
    let listener = tcp();
    assert_eq!(listener.waiting(), Some(0));
    let clients = [(); 3].map(|()| client_of(&listener).unwrap());
    assert_eq!(listener.waiting(), Some(3));
    drop(clients);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(Listener::new(ours.into(), false).waiting(), None);
}

#[test]
fn sockets_that_linger_in_a_queue_are_closed_without_waiting() {
    let name = "sys::listen::tests::sockets_that_linger_in_a_queue_are_closed_without_waiting";
    if !in_own_process(name) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("service");
    let cases = [
        (PathKind::Stream, &b"x"[..]),
        (PathKind::Datagram, b"x"),
        (PathKind::Datagram, b""),
    ];
    let cases = [false, true].map(|given| cases.map(|(kind, bytes)| (given, kind, bytes)));
    for (given, kind, bytes) in cases.into_iter().flatten() {
        let listener = path(&at, kind, 10, RIGHTS).unwrap();
        let address = UnixAddr::new(&at).unwrap();
        let kind = getsockopt(&listener, sockopt::SockType).unwrap();
        let client = new_socket(&address, kind).unwrap();
        connect(client.as_raw_fd(), &address).unwrap();
        let (lingering, _peer) = lingering();
        send_descriptor(&client, &lingering, bytes).unwrap();
        drop(lingering);
        let begin = Instant::now();
        if given {
            listener.give();
        }
        close([listener], SHUTDOWN_TIME);
        assert!(begin.elapsed() < SOON, "{kind:?} {}", bytes.len());
    }
}

#[test]
fn what_a_killed_master_left_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("service");
    for kind in [PathKind::Stream, PathKind::Datagram, PathKind::Fifo] {
        for _ in 0..2 {
            let fd = path(&at, kind, 10, RIGHTS).unwrap();
            assert_like_postfix(&fd);
        }
        let mode = fs::metadata(&at).unwrap().permissions().mode() & 0o777;
        let fifo = kind == PathKind::Fifo;
        assert_eq!(mode, if fifo { 0o622 } else { 0o666 });
    }
}

#[test]
fn a_replaced_listener_comes_back_unless_the_change_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("service");
    let _old = path(&at, PathKind::Stream, 10, RIGHTS).unwrap();
    let old = fs::metadata(&at).unwrap().ino();
    let aside = Aside::put(&at).unwrap().unwrap();
    let _new = path(&at, PathKind::Fifo, 10, RIGHTS).unwrap();
    drop(aside);
    assert_eq!(fs::metadata(&at).unwrap().ino(), old);
    let aside = Aside::put(&at).unwrap().unwrap();
    let _new = path(&at, PathKind::Fifo, 10, RIGHTS).unwrap();
    aside.forget();
    assert_ne!(fs::metadata(&at).unwrap().ino(), old);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(Aside::put(&dir.path().join("gone")).unwrap().is_none());
}

#[test]
fn a_directory_is_put_aside_and_stays_there() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("service");
    fs::create_dir(&at).unwrap();
    let listener = path(&at, PathKind::Stream, 10, RIGHTS);
    let is_directory = Some(io::ErrorKind::IsADirectory);
    assert_eq!(listener.err().map(|e| e.kind()), is_directory);
    drop(Aside::put(&at).unwrap());
    assert!(at.is_dir());
    let aside = Aside::put(&at).unwrap().unwrap();
    let name = aside.directory().unwrap().to_owned();
    let _listener = path(&at, PathKind::Stream, 10, RIGHTS).unwrap();
    aside.forget();
    assert!(name.is_dir());
}

#[test]
fn another_file_in_the_place_of_a_listener_is_known_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("service");
    assert_eq!(FileId::of(&at), None);
    let _listener = path(&at, PathKind::Stream, 10, RIGHTS).unwrap();
    let id = FileId::of(&at);
    assert!(id.is_some());
    assert_eq!(FileId::of(&at), id);
    fs::remove_file(&at).unwrap();
    std::os::unix::fs::symlink("elsewhere", &at).unwrap();
    assert_ne!(FileId::of(&at), id);
}
