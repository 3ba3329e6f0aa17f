//! The master's own sockets: access rights, and invalid messages.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

use master::control::{self, Answer, Request, Target, identity};
use master::status;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use testkit::instance::SOON;
use testkit::operator::service;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

fn approach(path: &Path) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    let patience = TimeVal::seconds(SOON.as_secs() as i64);
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience).expect("a time limit");
    connect(fd.as_raw_fd(), &UnixAddr::new(path).expect("a path")).expect("the control socket");
    fd
}

/// The master's answer to a message; `None` if it sends none.
fn ask(standalone: &Standalone, message: &[u8]) -> Option<Answer> {
    let connection = approach(&standalone.queue().join(control::SOCKET));
    send(connection.as_raw_fd(), message, MsgFlags::empty()).expect("room");
    let mut answer = [0; 64];
    let length = recv(connection.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    Answer::decode(&answer[..length])
}

#[test]
fn the_group_of_the_mail_owner_may_look_and_only_root_may_steer() {
    for mut standalone in Standalone::all() {
        standalone.write_table("a unix n - - - 5 true\n").start();
        let look = |name: &str| {
            let metadata = fs::metadata(standalone.queue().join(name)).expect("a socket");
            (metadata.uid(), metadata.mode() & 0o7777)
        };
        let open = if standalone.uid() == 0 { 0o660 } else { 0o600 };
        assert_eq!(look(status::SOCKET), (standalone.uid(), open));
        assert_eq!(look(status::OWN_SOCKET), (standalone.uid(), 0o600));
        assert_eq!(look(control::SOCKET), (standalone.uid(), 0o600));
    }
}

#[test]
fn who_comes_past_the_permissions_is_refused_and_named() {
    needs_root("to have a stranger");
    let mut standalone = Standalone::new();
    standalone.write_table("a unix n - - - 5 true\n").start();
    for name in [status::SOCKET, control::SOCKET] {
        let all = fs::Permissions::from_mode(0o666);
        fs::set_permissions(standalone.queue().join(name), all).unwrap();
    }
    let pause = |user: u32| {
        let mut command = standalone.masterctl(&["pause", "a"]);
        run(command.uid(user).gid(user), SOON)
    };
    let refused = pause(4711);
    assert_eq!(refused.status.code(), Some(8), "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("only root and the user that runs the master"),
        "{refused:?}"
    );
    assert!(!service(&standalone, "a").paused);
    standalone.wait_for_line("warning: a request: refused to uid 4711 pid ");
}

#[test]
fn what_is_no_request_changes_nothing_and_does_not_fill_the_log() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let good = Request::Verbose(true).encode();
    let long = [&good[..], &[0; 400]].concat();
    for message in [&good[1..], &long, &[0; Request::SIZE], b"pause a"] {
        assert_eq!(ask(&standalone, message), Some(Answer::Malformed));
    }
    for _ in 0..30 {
        ask(&standalone, b"x");
    }
    let lines = standalone
        .said()
        .matches("a request: refused to uid ")
        .count();
    assert_eq!(lines, 10, "{}", standalone.said());
    // Silent clients do not block others.
    let silent: Vec<OwnedFd> = (0..40)
        .map(|_| approach(&standalone.queue().join(control::SOCKET)))
        .collect();
    assert_eq!(ask(&standalone, &good), Some(Answer::Done));
    drop(silent);
}

#[test]
fn a_place_that_is_another_services_by_now_is_left_alone() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    let place = service(&standalone, "a").place;
    let pause = |endpoint: &str| {
        let identity = identity("unix", endpoint);
        Request::Pause(Target { place, identity }).encode()
    };
    // A place is reused after its service is gone.
    for table in ["c unix n - - - 5 true\n", "b unix n - - - 5 true\n"] {
        standalone.write_table(table);
        standalone.reload();
    }
    assert_eq!(service(&standalone, "b").place, place);
    assert_eq!(ask(&standalone, &pause("public/a")), Some(Answer::Unknown));
    assert!(!service(&standalone, "b").paused);
    assert_eq!(ask(&standalone, &pause("public/b")), Some(Answer::Done));
    assert!(service(&standalone, "b").paused);
    let nowhere = Target {
        place: u32::MAX,
        identity: 0,
    };
    let request = Request::Pause(nowhere).encode();
    assert_eq!(ask(&standalone, &request), Some(Answer::Unknown));
}

#[test]
fn what_is_said_to_the_status_socket_is_not_heard() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix n - - - 5 true\n").start();
    use std::io::{Read, Write};
    let path = standalone.queue().join(status::SOCKET);
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    // The master may have answered and closed already.
    let _ = stream.write_all(&[0xff; 1000]);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let _: status::Document = serde_json::from_slice(&text).expect("a document");
}
