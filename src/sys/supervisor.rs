//! Messages to the service manager, if it has asked for them: the protocol of sd_notify(3), datagrams
//! with a variable a line. A message that the service manager has no room for is lost; nothing here
//! waits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::clock;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The service manager at the socket of `NOTIFY_SOCKET`; `WATCHDOG_USEC` and `WATCHDOG_PID` say
    /// how often it expects a message of process `pid`.
    ///
    /// # Errors
    /// The socket cannot be reached.
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
        pid: u32,
    ) -> io::Result<Self> {
        let Some(name) = variable("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let number = |name: &str| variable(name)?.to_str()?.parse::<u64>().ok();
        let is_for_us = number("WATCHDOG_PID").is_none_or(|wanted| wanted == u64::from(pid));
        let interval = number("WATCHDOG_USEC").filter(|&usec| is_for_us && usec > 0);
        Ok(Self {
            socket: Some(connect(&name)?),
            watchdog: interval.map(Duration::from_micros),
        })
    }

    /// The time without a message of [`alive`](Self::alive) after which the service manager ends this
    /// process, if it watches.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The master serves: at the start, and after a reload, also one that failed.
    pub fn ready(&self, status: &str) {
        let pid = std::process::id();
        // The first line; more would be variables of their own.
        let status = status.lines().next().unwrap_or_default();
        self.send(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}\n"));
    }

    /// A reload begins. By the time, the service manager tells messages of before and after it apart.
    pub fn reloading(&self) {
        let now = clock::monotonic().as_micros();
        self.send(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading\n"
        ));
    }

    /// The master is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping\n");
    }

    /// The master is alive: to be sent more often than [`Self::watchdog`] says.
    pub fn alive(&self) {
        self.send("WATCHDOG=1\n");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // A service manager that does not read, or is gone, is not waited for.
            let _ = socket.send(message.as_bytes());
        }
    }
}

/// A path, or with `@` before it a name of Linux's abstract ones.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        name => SocketAddr::from_pathname(OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables<'a>(
        pairs: &'a [(&'a str, &'a str)],
    ) -> impl Fn(&str) -> Option<OsString> + use<'a> {
        |name| {
            let (_, value) = pairs.iter().find(|(known, _)| *known == name)?;
            Some(value.into())
        }
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        socket.set_nonblocking(true).unwrap();
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_service_manager_is_told_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("master-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        let sockets = [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.display().to_string(),
            ),
            (
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
                format!("@{name}"),
            ),
        ];
        for (socket, address) in sockets {
            let pairs = [("NOTIFY_SOCKET", address.as_str())];
            let supervisor = Supervisor::from_environment(variables(&pairs), 1).unwrap();
            supervisor.ready("3 services\nFORGED=1");
            let pid = std::process::id();
            assert_eq!(
                received(&socket),
                format!("READY=1\nMAINPID={pid}\nSTATUS=3 services\n")
            );
            supervisor.reloading();
            assert!(received(&socket).starts_with("RELOADING=1\nMONOTONIC_USEC="));
        }
    }

    #[test]
    fn a_watchdog_is_for_the_process_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let _socket = UnixDatagram::bind(&path).unwrap();
        let watchdog = |pid: &str| {
            let pairs = [
                ("NOTIFY_SOCKET", path.as_str()),
                ("WATCHDOG_USEC", "30000000"),
                ("WATCHDOG_PID", pid),
            ];
            let supervisor = Supervisor::from_environment(variables(&pairs), 7).unwrap();
            supervisor.watchdog()
        };
        assert_eq!(watchdog("7"), Some(Duration::from_secs(30)));
        assert_eq!(watchdog("8"), None);
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent() {
        let supervisor = Supervisor::from_environment(|_| None, 1).unwrap();
        supervisor.ready("unheard");
        assert_eq!(supervisor.watchdog(), None);
    }

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify").display().to_string();
        let _socket = UnixDatagram::bind(&path).unwrap();
        let pairs = [("NOTIFY_SOCKET", path.as_str())];
        let supervisor = Supervisor::from_environment(variables(&pairs), 1).unwrap();
        for _ in 0..10_000 {
            supervisor.alive();
        }
    }
}
