//! Asynchronous connections with a timeout.

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
/// [`TimedOut`](ErrorKind::TimedOut) when no data has moved for `ipc_timeout` (default: 3600s).
#[derive(Debug)]
pub struct Client {
    stream: TimeoutStream<Stream>,
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
        // The type does not matter: all stream operations are the same for all families.
        let stream = StdStream::from(arrival.descriptor);
        stream.set_nonblocking(true)?;
        let stream = Stream::Socket(UnixStream::from_std(stream)?);
        Ok(Self {
            stream: TimeoutStream::new(stream, silence),
            peer,
            attributes: arrival.attributes,
        })
    }

    pub(super) fn standard(silence: Duration) -> Self {
        let stream = Stream::Standard(tokio::io::stdin(), tokio::io::stdout());
        Self {
            stream: TimeoutStream::new(stream, silence),
            peer: Peer::Standard,
            attributes: BTreeMap::new(),
        }
    }

    /// The client's identity.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Attributes from the process that passed the connection, such as `client_address`. Empty
    /// unless the service's type is `pass`.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        &self.attributes
    }

    /// Sets the timeout for reading and writing from now on.
    pub fn set_timeout(&mut self, silence: Duration) {
        self.stream.set_timeout(silence);
    }
}

/// A stream with a timeout: reading and writing fail with [`TimedOut`](ErrorKind::TimedOut) when no
/// data has moved in either direction for that time.
#[derive(Debug)]
pub struct TimeoutStream<S> {
    stream: S,
    silence: Duration,
    /// When the current wait times out.
    end: Option<Pin<Box<Sleep>>>,
}

impl<S> TimeoutStream<S> {
    /// Adds a timeout to a stream.
    pub fn new(stream: S, silence: Duration) -> Self {
        Self {
            stream,
            silence,
            end: None,
        }
    }

    /// Sets another timeout from now on.
    pub fn set_timeout(&mut self, silence: Duration) {
        self.silence = silence;
        self.end = None;
    }

    /// Returns the result of an operation on the stream, or the timeout.
    fn check_timeout<T>(
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

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.check_timeout(context, result)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_timeout(context, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.check_timeout(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.check_timeout(context, result)
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
