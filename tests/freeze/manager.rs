//! Sockets from a service manager belong to the manager: whatever happens to the service or the
//! master, they keep listening, and their paths stay.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockopt,
    setsockopt, socket, sockopt,
};
use nix::unistd::User;

use crate::stage::Stage;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::operator::masterctl;
use testkit::poll::until;
use testkit::ports::Port;
use testkit::{needs_root, test};

/// The first passed descriptor.
const FIRST: RawFd = 3;

/// A socket of the service manager.
pub struct Socket {
    pub listener: OwnedFd,
    /// The name and type of its service.
    pub name: String,
    pub kind: &'static str,
    /// The addresses for clients.
    pub addresses: Vec<String>,
    path: Option<(PathBuf, u64)>,
    _port: Option<Port>,
}

impl Socket {
    pub fn tcp() -> Self {
        let port = Port::reserve();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        Self {
            listener: listen(address),
            name: address.to_string(),
            kind: "inet",
            addresses: vec![address.to_string()],
            path: None,
            _port: Some(port),
        }
    }

    /// A socket for all IPv4 addresses.
    fn of_all_addresses() -> Self {
        let port = Port::reserve();
        let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number()));
        Self {
            listener: TcpListener::bind(all).expect("a port").into(),
            name: all.to_string(),
            kind: "inet",
            addresses: vec![format!("127.0.0.1:{port}")],
            path: None,
            _port: Some(port),
        }
    }

    /// A socket for both families, as with `ListenStream=PORT`.
    fn of_both_families() -> Self {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let localhosts = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        Self {
            listener: listener.into(),
            name: port.to_string(),
            kind: "inet",
            addresses: localhosts
                .map(|host| SocketAddr::new(host, port).to_string())
                .to_vec(),
            path: None,
            _port: None,
        }
    }

    /// A socket at a service's path, which may lead through a symbolic link.
    fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a path");
        let inode = path.metadata().expect("a socket").ino();
        let name = path.file_name().and_then(|name| name.to_str());
        Self {
            listener: listener.into(),
            name: name.expect("a name").to_owned(),
            kind: "unix",
            addresses: vec![path.display().to_string()],
            path: Some((path.to_owned(), inode)),
            _port: None,
        }
    }

    pub fn unix(stage: &Stage) -> Self {
        make_queue(stage);
        Self::at(&stage.path("handed"))
    }

    fn unix_through_a_link(stage: &Stage) -> Self {
        make_queue(stage);
        let link = stage.standalone.path().join("link");
        symlink(stage.standalone.queue(), &link).expect("a link");
        Self::at(&link.join("public/handed"))
    }

    /// The name of the service in `master.toml`.
    fn table(&self) -> String {
        format!("[service.\"{}/{}\"]\n", self.name, self.kind)
    }

    /// Starts the master with this socket, and lets it serve.
    #[track_caller]
    pub fn hand_over(&self, stage: &mut Stage, command: &str) {
        let columns = format!("{} {} n", self.name, self.kind);
        stage.service(&columns, "5", command);
        let script = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
        let mut master = stage.by("/bin/sh", &["-c", script, "sh"]);
        // A number that does not conflict with the target descriptor.
        let copy = fcntl(&self.listener, FcntlArg::F_DUPFD_CLOEXEC(100)).expect("a descriptor");
        // SAFETY: between fork and exec the closure only calls dup2(2). The copy stays open until
        // then.
        unsafe {
            master.pre_exec(move || match libc::dup2(copy, FIRST) {
                FIRST => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        stage.start_as(&mut master);
        // SAFETY: it was created above and is not used any more.
        unsafe { libc::close(copy) };
    }

    /// Connects clients that are served and stay.
    #[track_caller]
    fn expect_service(&self) -> Vec<Client> {
        let clients = self.addresses.iter().map(|address| {
            let mut client = Client::connect(address);
            assert!(
                client.line_within(SOON).is_some(),
                "{address}: no first byte"
            );
            client
        });
        clients.collect()
    }

    fn connect(address: &str) -> io::Result<OwnedFd> {
        if address.contains('/') {
            UnixStream::connect(address).map(OwnedFd::from)
        } else {
            TcpStream::connect(address).map(OwnedFd::from)
        }
    }

    /// Asserts that the manager's copy listens, that clients can connect, and that its path is
    /// unchanged.
    #[track_caller]
    fn expect_the_managers(&self) {
        self.expect_at_its_path();
        self.expect_listening();
        for address in &self.addresses {
            let client =
                Self::connect(address).unwrap_or_else(|why| panic!("a client of {address}: {why}"));
            self.expect_client();
            drop(client);
        }
    }

    #[track_caller]
    pub fn expect_listening(&self) {
        let listens = getsockopt(&self.listener, sockopt::AcceptConn);
        assert_eq!(listens, Ok(true), "SO_ACCEPTCONN of {}", self.name);
    }

    #[track_caller]
    pub fn expect_at_its_path(&self) {
        if let Some((path, inode)) = &self.path {
            let found = path.metadata().map(|facts| facts.ino()).ok();
            assert_eq!(found, Some(*inode), "what is at {}", path.display());
        }
    }

    /// Asserts that the manager itself can accept a client.
    #[track_caller]
    fn expect_client(&self) {
        let listener = TcpListener::from(self.listener.try_clone().expect("a descriptor"));
        listener.set_nonblocking(true).expect("non-blocking");
        until(SOON, "the manager to have a client", || {
            // accept(2) without an address, because the socket may not be a TCP socket.
            let client = socket::accept(listener.as_raw_fd());
            // SAFETY: accept(2) has just returned it, so nothing else owns it.
            client.map(|client| unsafe { libc::close(client) }).is_ok()
        });
    }
}

/// Listens on a reserved port. The port is bound by its number: the system releases a port that it
/// has chosen itself when the listening ends.
fn listen(address: SocketAddr) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket");
    setsockopt(&listener, sockopt::ReuseAddr, &true).expect("SO_REUSEADDR");
    setsockopt(&listener, sockopt::ReusePort, &true).expect("SO_REUSEPORT");
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address)).expect("a port");
    socket::listen(&listener, Backlog::MAXCONN).expect("a listener");
    listener
}

/// Creates the directories that the master would create.
fn make_queue(stage: &Stage) {
    let owner = User::from_name("nobody")
        .expect("the users")
        .expect("mail_owner")
        .uid
        .as_raw();
    for (directory, owner) in [("pid", 0), ("private", owner), ("public", owner)] {
        let path = stage.standalone.queue().join(directory);
        fs::create_dir_all(&path).expect("a directory");
        chown(&path, Some(owner), None).expect("an owner");
    }
}

/// A normal stop, which waits for the children, does not change the socket.
#[track_caller]
fn outlives_a_stop(make: impl FnOnce(&Stage) -> Socket) {
    let mut stage = Stage::new();
    let socket = make(&stage);
    let command = format!("{} serve", stage.hello());
    stage.configure(&format!("{}stop_timeout = \"1s\"\n", socket.table()));
    socket.hand_over(&mut stage, &command);
    let clients = socket.expect_service();
    stage.stop();
    drop(clients);
    socket.expect_the_managers();
}

/// A reload that removes the service does not change the socket.
#[track_caller]
fn outlives_its_service(make: impl FnOnce(&Stage) -> Socket) {
    let mut stage = Stage::new();
    let socket = make(&stage);
    let command = format!("{} serve", stage.hello());
    socket.hand_over(&mut stage, &command);
    let clients = socket.expect_service();
    stage.remove(&socket.name);
    let said = stage.reload_within(SOON);
    assert!(said.contains("1 removed"), "{said}");
    drop(clients);
    until(SOON, "the children's end", || stage.children().is_empty());
    socket.expect_the_managers();
    // Once more after the end of the master.
    stage.stop();
    socket.expect_the_managers();
}

/// Without the fix: "SO_ACCEPTCONN of 127.0.0.1:PORT", false.
#[test]
fn a_tcp_socket_of_a_manager_outlives_a_stop() {
    needs_root("a master that keeps to itself");
    outlives_a_stop(|_| Socket::tcp());
}

/// Without the fix: "SO_ACCEPTCONN of 127.0.0.1:PORT", false.
#[test]
fn a_tcp_socket_of_a_manager_outlives_its_service() {
    needs_root("a master that keeps to itself");
    outlives_its_service(|_| Socket::tcp());
}

/// Without the fix: "a client of PATH: Connection refused".
#[test]
fn a_unix_socket_of_a_manager_outlives_a_stop() {
    needs_root("a master that keeps to itself");
    outlives_a_stop(Socket::unix);
}

/// Without the fix: "a client of PATH: Connection refused".
#[test]
fn a_unix_socket_of_a_manager_outlives_its_service() {
    needs_root("a master that keeps to itself");
    outlives_its_service(Socket::unix);
}

/// Without the fix: "what is at PATH": another inode, because the master made a socket of its own.
#[test]
fn a_unix_socket_of_a_manager_behind_a_symbolic_link_outlives_a_stop() {
    needs_root("a master that keeps to itself");
    outlives_a_stop(Socket::unix_through_a_link);
}

/// Without the fix: "what is at PATH", as above.
#[test]
fn a_unix_socket_of_a_manager_behind_a_symbolic_link_outlives_its_service() {
    needs_root("a master that keeps to itself");
    outlives_its_service(Socket::unix_through_a_link);
}

/// Without the fix: "cannot listen on 0.0.0.0:PORT: Address already in use".
#[test]
fn a_socket_of_both_families_of_a_manager_serves_a_port_and_outlives_a_stop() {
    needs_root("a master that keeps to itself");
    outlives_a_stop(|_| Socket::of_both_families());
}

/// Without the fix: "cannot listen on 0.0.0.0:PORT: Address already in use".
#[test]
fn a_socket_of_both_families_of_a_manager_serves_a_port_and_outlives_its_service() {
    needs_root("a master that keeps to itself");
    outlives_its_service(|_| Socket::of_both_families());
}

/// An upgrade to a program that loses a descriptor, so that the master starts anew: with the manager's
/// sockets, which is seen by a second upgrade, too.
#[track_caller]
fn outlives_a_failed_upgrade(make: impl FnOnce(&Stage) -> Socket) {
    let mut stage = Stage::new();
    let socket = make(&stage);
    let command = format!("{} serve", stage.hello());
    stage.configure(&socket.table());
    socket.hand_over(&mut stage, &command);
    drop(socket.expect_service());
    let master = stage.master().executable();
    let master = master.display();
    let program = stage.standalone.script(
        "closing",
        &format!(
            "case \"$*\" in *--resume-check*) exec {master} \"$@\";; esac\n\
             exec python3 -c '\n{CLOSING}' {master} \"$@\""
        ),
    );
    for _ in 0..2 {
        let mark = stage.standalone.said().len();
        // The operator's connection ends with the former program.
        let _ = masterctl(
            &stage.standalone,
            &["upgrade", "--program", &program.to_string_lossy()],
        );
        let said = until(SOON, "another start", || {
            let said = stage.standalone.said().split_off(mark);
            (said.contains("daemon started") || stage.has_ended()).then_some(said)
        });
        assert!(said.contains("starting anew"), "{said}");
        socket.expect_listening();
        socket.expect_at_its_path();
        drop(socket.expect_service());
    }
    masterctl(&stage.standalone, &["upgrade"]).expect_success();
    drop(socket.expect_service());
    stage.stop();
    socket.expect_the_managers();
}

/// Closes the descriptor of a lock and executes the program in its arguments.
const CLOSING: &str = r#"
import os, sys
for fd in os.listdir("/proc/self/fd"):
    path = "/proc/self/fd/" + fd
    if os.path.lexists(path) and os.readlink(path).endswith("/master.lock"):
        os.close(int(fd))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Without the fix: "cannot listen on 127.0.0.1:PORT: Address already in use".
#[test]
fn a_tcp_socket_of_a_manager_outlives_a_failed_upgrade() {
    needs_root("a master that keeps to itself");
    outlives_a_failed_upgrade(|_| Socket::tcp());
}

/// Without the fix: "what is at PATH": another inode, because the master made a socket of its own.
#[test]
fn a_unix_socket_of_a_manager_outlives_a_failed_upgrade() {
    needs_root("a master that keeps to itself");
    outlives_a_failed_upgrade(Socket::unix);
}

/// The manager's socket, and not another program, has the port.
#[test]
fn a_reload_to_a_part_of_a_managers_address_names_the_manager() {
    needs_root("a master that keeps to itself");
    let mut stage = Stage::new();
    let socket = Socket::of_all_addresses();
    let command = format!("{} serve", stage.hello());
    socket.hand_over(&mut stage, &command);
    let _clients = socket.expect_service();
    stage.remove(&socket.name);
    let part = &socket.addresses[0];
    stage.service(&format!("{part} inet n"), "5", &command);
    let said = stage.reload_within(SOON);
    let words = format!(
        "cannot listen on {part}: Address already in use; the service manager has handed over {}: \
         set \"ListenStream={part}\"",
        socket.name
    );
    assert!(said.contains(&words), "{said}");
    let _others = socket.expect_service();
    // A client would be the service's, which goes on, and not the manager's.
    socket.expect_listening();
}
