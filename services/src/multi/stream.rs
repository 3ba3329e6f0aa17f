//! Asynchronous connections, with a limit on their silence.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

use crate::Peer;
use crate::pass::Arrival;

/// An asynchronous connection to one client. Reading and writing fail with
/// [`TimedOut`](ErrorKind::TimedOut) when nothing moves for `ipc_timeout` (an hour, if not set).
#[derive(Debug)]
pub struct Client {
    stream: Patient<Stream>,
    peer: Peer,
    attributes: BTreeMap<String, String>,
}

#[derive(Debug)]
enum Stream {
    Socket(UnixStream),
    Standard(Stdin, Stdout),
}

impl Client {
    pub(super) fn new(arrival: Arrival, silence: Duration) -> io::Result<Self> {
        let peer = Peer::of(arrival.descriptor.as_fd());
        // Nothing that is done with a stream depends on its family.
        let stream = StdStream::from(arrival.descriptor);
        stream.set_nonblocking(true)?;
        let stream = Stream::Socket(UnixStream::from_std(stream)?);
        Ok(Self {
            stream: Patient::new(stream, silence),
            peer,
            attributes: arrival.attributes,
        })
    }

    pub(super) fn standard(silence: Duration) -> Self {
        let stream = Stream::Standard(tokio::io::stdin(), tokio::io::stdout());
        Self {
            stream: Patient::new(stream, silence),
            peer: Peer::Standard,
            attributes: BTreeMap::new(),
        }
    }

    /// Who the client is.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the process that handed on the connection says of it, such as `client_address`; empty
    /// unless the service's type is `pass`.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// How long the client may take from now on to send or receive something.
    pub fn set_timeout(&mut self, silence: Duration) {
        self.stream.set_timeout(silence);
    }
}

/// A stream with a limit on its silence: reading and writing fail with
/// [`TimedOut`](ErrorKind::TimedOut) when nothing moves for so long, in either direction.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    silence: Duration,
    /// When the present silence is too long.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Limits the silence of a stream.
    pub fn new(stream: S, silence: Duration) -> Self {
        Self {
            stream,
            silence,
            end: None,
        }
    }

    /// Sets another limit from now on.
    pub fn set_timeout(&mut self, silence: Duration) {
        self.silence = silence;
        self.end = None;
    }

    /// Passes on what the stream has done, or that it has done nothing for too long.
    fn listen<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.end = None;
            return result;
        }
        let silence = self.silence;
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(end.as_mut().poll(context));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.listen(context, result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.listen(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.listen(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.listen(context, result)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Standard(input, _) => Pin::new(input).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Standard(_, output) => Pin::new(output).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_flush(context),
            Self::Standard(_, output) => Pin::new(output).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Standard(_, output) => Pin::new(output).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
