//! Connects each client to another address and forwards data in both directions, until both sides
//! have closed or no data has moved for some time.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use master::files::SocketPath;
use services::multi::{Client, TimeoutStream};
use services::{About, Error, Service};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

const ABOUT: About = About {
    summary: "Connects clients to another address.",
    arguments: "to=HOST:PORT | to=PATH",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |mut service| {
        let target = Rc::new(Target::of(&service)?);
        let limits = Limits {
            connect: service.time("proxy_connect_timeout", "30s")?,
            silence: service.time("proxy_timeout", "300s")?,
        };
        service.multi(move |client| proxy(client, Rc::clone(&target), limits))
    })
}

/// The address that clients are connected to.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// A host and a port.
    Inet(String),
    Unix(PathBuf),
}

#[derive(Clone, Copy)]
struct Limits {
    connect: Duration,
    silence: Duration,
}

impl Target {
    fn of(service: &Service) -> Result<Self, Error> {
        let target = match service.arguments() {
            [argument] => argument.to_str().and_then(Self::parse),
            _ => None,
        };
        target.ok_or_else(|| {
            Error::Usage("expected one argument: to=HOST:PORT, or to=PATH of a socket".into())
        })
    }

    fn parse(argument: &str) -> Option<Self> {
        let target = argument.strip_prefix("to=")?;
        if target.contains('/') {
            return Some(Self::Unix(target.into()));
        }
        let (host, port) = target.rsplit_once(':')?;
        let number: u16 = port.parse().ok()?;
        (!host.is_empty() && number > 0).then(|| Self::Inet(target.to_owned()))
    }
}

async fn proxy(client: Client, target: Rc<Target>, limits: Limits) -> io::Result<()> {
    match &*target {
        Target::Inet(address) => {
            let server = within(limits.connect, address, TcpStream::connect(address)).await?;
            splice(client, server, limits.silence).await
        }
        Target::Unix(path) => {
            let name = path.display().to_string();
            let connect = async { UnixStream::connect(SocketPath::new(path)?.as_path()).await };
            let server = within(limits.connect, &name, connect).await?;
            splice(client, server, limits.silence).await
        }
    }
}

/// Connects within a time limit. A failure is logged as an error, because it is not the client's
/// fault.
async fn within<S>(
    limit: Duration,
    target: &str,
    connect: impl Future<Output = io::Result<S>>,
) -> io::Result<S> {
    let connected = timeout(limit, connect)
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    connected.map_err(|error| {
        let reason = master::errors::describe_error(&error);
        io::Error::other(format!("cannot connect to {target}: {reason}"))
    })
}

/// Forwards data in both directions. When one side stops sending, the other is told and can
/// continue.
async fn splice(
    mut client: Client,
    server: impl AsyncRead + AsyncWrite + Unpin,
    silence: Duration,
) -> io::Result<()> {
    client.set_timeout(silence);
    let mut server = TimeoutStream::new(server, silence);
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_and_port_or_a_path() {
        let inet = |address: &str| Some(Target::Inet(address.to_owned()));
        assert_eq!(Target::parse("to=localhost:25"), inet("localhost:25"));
        assert_eq!(Target::parse("to=[::1]:25"), inet("[::1]:25"));
        let unix = Some(Target::Unix("/run/x:1".into()));
        assert_eq!(Target::parse("to=/run/x:1"), unix);
        let relative = Some(Target::Unix("public/x".into()));
        assert_eq!(Target::parse("to=public/x"), relative);
        for bad in [
            "to=",
            "to=25",
            "to=:25",
            "to=host:",
            "to=host:0",
            "host:25",
            "to=h:70000",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
