//! Descriptors that are sent to the master: of TCP connections with SO_LINGER and data that is
//! never read. If the master does the last close, it blocks for the lingering time, 30 seconds for
//! each. Clients of other services must not be delayed.
//!
//! Each test runs on the kernel as it is, which may have SO_PASSRIGHTS (since 6.16), and on a
//! kernel without it, which `refuse` simulates.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, IoSlice, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::libc::linger;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
    setsockopt, socket, sockopt,
};

use crate::lingering;
use crate::stage::Stage;
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::layout::replace;
use testkit::poll::until;
use testkit::process::{Kind, Process};
use testkit::programs::example;
use testkit::{needs_root, test};

/// How long other services' clients are measured after the descriptors were sent.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// The level and the option number of SO_PASSRIGHTS.
const PASSRIGHTS: [&str; 2] = ["1", "83"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    AsItIs,
    WithoutPassrights,
}

/// A master on such a kernel, and an address where nothing is read.
struct Setup {
    // Dropped first: its connections then end, and closing them does not block any more.
    sink: TcpListener,
    stage: Stage,
    kernel: Kernel,
}

impl Setup {
    fn new(kernel: Kernel) -> Self {
        let sink = TcpListener::bind("127.0.0.1:0").expect("a port");
        setsockopt(&sink, sockopt::RcvBuf, &4096).expect("a small buffer");
        Self {
            sink,
            stage: Stage::new(),
            kernel,
        }
    }

    fn sink(&self) -> String {
        self.sink.local_addr().expect("an address").to_string()
    }

    #[track_caller]
    fn start(&mut self) {
        let refuse = example("refuse").display().to_string();
        let [level, option] = PASSRIGHTS;
        let mut master = match self.kernel {
            Kernel::AsItIs => self.stage.standalone.master(&["-d"]),
            Kernel::WithoutPassrights => {
                let what = ["setsockopt", "ENOPROTOOPT", level, option];
                self.stage.by(&refuse, &what)
            }
        };
        self.stage.start_as(&mut master);
    }

    /// Stops the master while the descriptors are sent, so that each last close is its own. Then
    /// asserts that no client of another service is delayed, and that the master keeps no
    /// descriptor.
    #[track_caller]
    fn delays_no_client(&self, send: impl FnOnce()) {
        let master = self.stage.master();
        master.signal(Signal::SIGSTOP);
        send();
        self.stage
            .expect_unnoticed(AFTERWARDS, || master.signal(Signal::SIGCONT));
        until(SOON, "the master to have none of the connections", || {
            connections(master) == 0
        });
    }

    /// Runs a service whose child sends the descriptors.
    #[track_caller]
    fn a_child_sends(self, to: &str, line: &str) {
        self.a_child_sends_before(to, line, |_| ());
    }

    /// The same; `tell` is called before the master continues.
    #[track_caller]
    fn a_child_sends_before(mut self, to: &str, line: &str, tell: impl FnOnce(Process)) {
        let (mut child, client) = self.run_a_child(to, line);
        self.delays_no_client(|| {
            child.send_and_end();
            tell(self.stage.master());
        });
        if self.kernel == Kernel::WithoutPassrights && ["shared", "ordered"].contains(&to) {
            self.stage
                .wait_for_line(&["warning: ", " sent descriptors -- ending it"]);
        }
        drop(client);
    }

    /// Starts the master with a service whose child can send the descriptors, and waits until the
    /// child is ready. Returns also the client for which it was started, if any.
    #[track_caller]
    fn run_a_child(&mut self, to: &str, line: &str) -> (Burden, Option<UnixStream>) {
        let path = self.stage.standalone.path().join("burden.control");
        let children = UnixListener::bind(&path).expect("a control socket");
        let program = self.stage.standalone.install(&example("burden"));
        self.stage.line(&format!(
            "{line} {} to={to} sink={} control={}",
            program.display(),
            self.sink(),
            path.display()
        ));
        self.start();
        let client = (to == "shared").then(|| {
            let connected = UnixStream::connect(self.stage.path("burden"));
            connected.expect("a listener")
        });
        (Burden::meet(&children), client)
    }

    /// Sends the descriptors over a connection to the master.
    fn we_send(&self, connection: impl AsRawFd, bytes: &[u8]) {
        let burden = lingering::connections(&self.sink()).expect("connections");
        let rights: Vec<RawFd> = burden.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&rights)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let bytes = [IoSlice::new(bytes)];
        let sent = sendmsg::<()>(connection.as_raw_fd(), &bytes, &rights, flags, None);
        say_what_was_sent(self.kernel, format_args!("{sent:?}"));
        if sent.is_err() {
            let _ = sendmsg::<()>(connection.as_raw_fd(), &bytes, &[], flags, None);
            // This thread does the last close, and must not block.
            let off = linger {
                l_onoff: 0,
                l_linger: 0,
            };
            for connection in &burden {
                setsockopt(connection, sockopt::Linger, &off).expect("an option");
            }
        }
    }
}

/// The number of the master's TCP connections: no service here listens on TCP.
fn connections(master: Process) -> usize {
    let descriptors = master.descriptors();
    let tcp = |kind: &Kind| matches!(kind, Kind::Socket(socket) if socket.family == "tcp");
    descriptors.values().filter(|one| tcp(&one.kind)).count()
}

/// Printed when a test fails: whether the kernel refused to send the descriptors.
fn say_what_was_sent(kernel: Kernel, sent: impl fmt::Display) {
    println!("on a kernel {kernel:?}, the sender was told {sent}");
}

/// A child that sends the descriptors on request.
struct Burden(BufReader<UnixStream>);

impl Burden {
    #[track_caller]
    fn meet(children: &UnixListener) -> Self {
        children.set_nonblocking(true).expect("non-blocking");
        let (stream, _) = until(SOON, "the child", || children.accept().ok());
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        let mut child = Self(BufReader::new(stream));
        assert_eq!(child.line(), "ready");
        child
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Returns when the child has ended and all its descriptors are closed.
    #[track_caller]
    fn send_and_end(&mut self) {
        let mut stream = self.0.get_ref();
        stream.write_all(b"send\n").expect("a reader");
        println!("the child was told {}", self.line());
        let mut stream = self.0.get_ref();
        stream.write_all(b".").expect("a reader");
        assert_eq!(self.line(), "", "its end");
    }
}

// ---- over the channel of a child

#[track_caller]
fn a_shared_child(kernel: Kernel) {
    Setup::new(kernel).a_child_sends("shared", "burden unix n n n - 1");
}

#[test]
fn descriptors_over_a_status_channel_delay_no_client() {
    needs_root("a master that keeps to itself");
    a_shared_child(Kernel::AsItIs);
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_a_status_channel_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    a_shared_child(Kernel::WithoutPassrights);
}

/// A reload closes the channel, and may find it unread.
///
/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_a_status_channel_that_a_reload_closes_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    let hang_up = |master: Process| master.signal(Signal::SIGHUP);
    Setup::new(Kernel::WithoutPassrights).a_child_sends_before(
        "shared",
        "burden unix n n n - 1",
        hang_up,
    );
}

/// The master ends in time, whatever its channels contain.
///
/// Without the fix: "waited 5s in vain for the master's end after SIGTERM", in about half the runs.
#[test]
fn descriptors_over_a_status_channel_delay_no_stop_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    let mut setup = Setup::new(Kernel::WithoutPassrights);
    let (mut child, client) = setup.run_a_child("shared", "burden unix n n n - 1");
    let master = setup.stage.master();
    master.signal(Signal::SIGSTOP);
    child.send_and_end();
    master.signal(Signal::SIGTERM);
    master.signal(Signal::SIGCONT);
    setup.stage.stop();
    drop(client);
}

/// A master with an ordered pool of such children.
fn ordered(kernel: Kernel) -> Setup {
    let mut setup = Setup::new(kernel);
    setup
        .stage
        .configure("[service.\"burden/unix\"]\naccept = \"ordered\"\nmin_children = 1\n");
    setup
}

#[track_caller]
fn an_ordered_child(kernel: Kernel) {
    ordered(kernel).a_child_sends("ordered", "burden unix n n n - 2");
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_the_channel_of_a_pool_that_a_reload_removes_delay_no_client_on_an_older_kernel()
{
    needs_root("a master that keeps to itself");
    let setup = ordered(Kernel::WithoutPassrights);
    let table = setup.stage.standalone.table();
    let rest = fs::read_to_string(&table).expect("the table");
    setup.a_child_sends_before("ordered", "burden unix n n n - 2", |master| {
        replace(&table, &rest);
        master.signal(Signal::SIGHUP);
    });
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_the_channel_of_an_ordered_pool_delay_no_client() {
    needs_root("a master that keeps to itself");
    an_ordered_child(Kernel::AsItIs);
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_the_channel_of_an_ordered_pool_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    an_ordered_child(Kernel::WithoutPassrights);
}

// ---- in answer to a wake-up

#[track_caller]
fn a_child_that_is_woken_up(kernel: Kernel) {
    Setup::new(kernel).a_child_sends("wakeup", "burden unix n n n 1000 1");
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_in_answer_to_a_wake_up_delay_no_client() {
    needs_root("a master that keeps to itself");
    a_child_that_is_woken_up(Kernel::AsItIs);
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_in_answer_to_a_wake_up_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    a_child_that_is_woken_up(Kernel::WithoutPassrights);
}

#[track_caller]
fn an_impostor(kernel: Kernel) {
    let mut setup = Setup::new(kernel);
    let hello = setup.stage.hello();
    // Not at the start, when the socket is still the service's own.
    setup.stage.line(&format!("pickup unix n n n 2? 1 {hello}"));
    setup.start();
    let mut client = Client::connect(&setup.stage.address("pickup"));
    client.line();
    let impostor = in_place_of(&setup.stage.path("pickup"));
    let (master, _) = until(SOON, "a wake-up", || impostor.accept().ok());
    setup.delays_no_client(|| setup.we_send(master, b"x"));
}

/// Listens at the path of a service.
fn in_place_of(path: &Path) -> UnixListener {
    fs::remove_file(path).expect("the service's socket");
    let impostor = UnixListener::bind(path).expect("a socket");
    // For mail_owner, as whom the service is woken up.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("a mode");
    impostor.set_nonblocking(true).expect("non-blocking");
    impostor
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_from_a_stranger_in_the_place_of_a_service_delay_no_client() {
    needs_root("a master that keeps to itself");
    an_impostor(Kernel::AsItIs);
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_from_a_stranger_in_the_place_of_a_service_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    an_impostor(Kernel::WithoutPassrights);
}

// ---- over the master's own sockets

#[track_caller]
fn a_client_of_the_master(kernel: Kernel, name: &str, kind: SockType) {
    let mut setup = Setup::new(kernel);
    setup.start();
    let path = setup.stage.standalone.queue().join(name);
    // The size of a request, with invalid content.
    let request = [0; master::control::Request::SIZE];
    setup.delays_no_client(|| {
        let flags = SockFlag::SOCK_CLOEXEC;
        let connection = socket(AddressFamily::Unix, kind, flags, None).expect("a socket");
        let address = UnixAddr::new(&path).expect("an address");
        connect(connection.as_raw_fd(), &address).expect("a socket of the master");
        setup.we_send(connection, &request);
    });
}

#[test]
fn descriptors_over_the_status_socket_delay_no_client() {
    needs_root("a master that keeps to itself");
    a_client_of_the_master(Kernel::AsItIs, master::status::SOCKET, SockType::Stream);
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_the_status_socket_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    a_client_of_the_master(
        Kernel::WithoutPassrights,
        master::status::SOCKET,
        SockType::Stream,
    );
}

#[test]
fn descriptors_over_the_control_socket_delay_no_client() {
    needs_root("a master that keeps to itself");
    a_client_of_the_master(Kernel::AsItIs, master::control::SOCKET, SockType::SeqPacket);
}

/// Without the fix: "a client of another service waited 5.0 s", the most that is measured.
#[test]
fn descriptors_over_the_control_socket_delay_no_client_on_an_older_kernel() {
    needs_root("a master that keeps to itself");
    a_client_of_the_master(
        Kernel::WithoutPassrights,
        master::control::SOCKET,
        SockType::SeqPacket,
    );
}
