//! Programs that read the status document. One document is made for all that come within
//! [`CURRENT`], and each is sent it as fast as it reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::Admin;
use super::admission::{Admission, LISTENER};
use crate::policy::Time;
use crate::runtime::Runtime;
use crate::runtime::upgrade::{Received, Saving};
use crate::sys::channel::Channel;
use crate::sys::poll::{Interest, Poll};
use crate::sys::process;
use crate::upgrade::{AdminState, ReaderState};

/// How long a document is given to further readers.
const CURRENT: Duration = Duration::from_millis(100);
/// It is given to them for longer if it took long to make: to make documents takes one part in so
/// many of the master's time.
const SHARE: u32 = 50;
/// Bytes that one reader may be sent; for each further portion it counts as one client more, so that
/// fewer are accepted in a period.
const PORTION: usize = 256 * 1024;

/// A reader, and how many bytes of its document it was sent.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Channel,
    document: Arc<[u8]>,
    sent: usize,
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Reader {
    /// The connection and what is left to send, for the program that goes on.
    pub(super) fn save(&self, socket: usize, saving: &mut Saving, state: &mut AdminState) {
        let document = String::from_utf8_lossy(&self.document);
        let known = state.documents.iter().position(|known| *known == document);
        let at = known.unwrap_or_else(|| {
            state.documents.push(document.into_owned());
            state.documents.len() - 1
        });
        state.readers.push(ReaderState {
            socket,
            connection: saving.channel(&self.connection),
            document: at,
            sent: self.sent,
        });
    }

    /// Goes on with a reader of a former program.
    ///
    /// # Errors
    /// Its connection or its document is missing.
    pub(super) fn resume(
        state: ReaderState,
        documents: &[Arc<[u8]>],
        received: &mut Received,
    ) -> io::Result<Self> {
        let document = documents.get(state.document);
        let document = document.ok_or(io::ErrorKind::NotFound)?.clone();
        Ok(Self {
            connection: received.channel(state.connection)?,
            sent: state.sent.min(document.len()),
            document,
        })
    }

    /// Sends as much as there is room for. Whether that was the rest, or the reader has gone.
    fn send(&mut self) -> bool {
        let sent = self.connection.send(&self.document[self.sent..]);
        self.sent = sent.map_or(self.document.len(), |sent| self.sent + sent);
        self.sent == self.document.len()
    }
}

/// The last document, and when the next one may be made.
#[derive(Debug)]
pub(super) struct Last {
    document: Arc<[u8]>,
    pub(super) old_at: Time,
}

impl Admin {
    /// The next document is to be made anew, because something was done just now.
    pub(in crate::runtime) fn renew_document(&mut self) {
        if let Some(last) = &mut self.last {
            last.old_at = Time::ZERO;
        }
    }

    /// The last document, unless a new one is to be made.
    fn document(&self, now: Time) -> Option<Arc<[u8]>> {
        let last = self.last.as_ref().filter(|last| now < last.old_at)?;
        Some(last.document.clone())
    }

    /// Keeps a document for other readers, longer if it took long to make.
    fn set_document(&mut self, now: Time, document: Arc<[u8]>, took: Duration) {
        self.last = Some(Last {
            document,
            old_at: now + CURRENT.max(took * SHARE),
        });
    }

    /// Forgets the document if it is old and has no readers.
    pub(super) fn forget_document(&mut self, now: Time) {
        let unread = !self.has_readers();
        if let Some(last) = self.last.take_if(|last| last.old_at <= now && unread) {
            let is_large = last.document.len() > PORTION;
            drop(last);
            if is_large {
                process::trim_memory();
            }
        }
    }

    pub(super) fn has_readers(&self) -> bool {
        !self.readers.iter().all(Admission::is_empty)
    }

    /// Goes on sending to a reader that has read some.
    fn send(&mut self, socket: usize, at: usize, poll: &Poll) {
        let readers = &mut self.readers[socket];
        if readers.get_mut(at).is_some_and(Reader::send) {
            readers.remove(at, poll);
        }
    }

    /// Sends the document to a new reader.
    fn serve(
        &mut self,
        now: Time,
        socket: usize,
        connection: Channel,
        document: Arc<[u8]>,
        poll: &Poll,
    ) -> io::Result<()> {
        let readers = &mut self.readers[socket];
        readers.count(document.len().saturating_sub(1) / PORTION);
        let mut reader = Reader {
            connection,
            document,
            sent: 0,
        };
        if reader.send() {
            return Ok(());
        }
        readers.keep(now, reader, Interest::Writable, poll)
    }
}

impl Runtime {
    /// Serves the reader `at`, or accepts programs that read the status document.
    pub(super) fn serve_readers(&mut self, now: Time, socket: usize, at: usize) -> io::Result<()> {
        if at != LISTENER {
            self.admin.send(socket, at, &self.poll);
            return Ok(());
        }
        while let Some(connection) = self.admin.readers[socket].accept(now, &self.poll)? {
            let document = match self.admin.document(now) {
                Some(document) => document,
                None => self.make_document(now),
            };
            self.admin
                .serve(now, socket, connection, document, &self.poll)?;
        }
        Ok(())
    }

    fn make_document(&mut self, now: Time) -> Arc<[u8]> {
        let begun = self.now();
        let document: Arc<[u8]> = self.document(now).into();
        let took = self.now().saturating_sub(begun);
        self.admin.set_document(now, document.clone(), took);
        document
    }
}

#[cfg(test)]
mod tests {
    use super::super::SHARED;
    use super::super::admission::MAX;
    use super::*;
    use nix::sys::socket::SockType;
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    const NOW: Time = Duration::from_secs(100);
    const QUICK: Duration = Duration::from_micros(50);

    fn document(length: usize) -> Arc<[u8]> {
        vec![b'1'; length].into()
    }

    #[test]
    fn readers_that_come_within_a_tenth_of_a_second_get_the_same_document() {
        let mut admin = Admin::default();
        assert_eq!(admin.document(NOW), None);
        admin.set_document(NOW, document(1), QUICK);
        assert_eq!(admin.document(NOW + CURRENT - QUICK), Some(document(1)));
        assert_eq!(admin.document(NOW + CURRENT), None);
    }

    #[test]
    fn a_document_that_takes_long_to_make_is_made_less_often() {
        let mut admin = Admin::default();
        let took = Duration::from_millis(20);
        admin.set_document(NOW, document(1), took);
        assert!(admin.document(NOW + 49 * took).is_some());
        assert_eq!(admin.document(NOW + 50 * took), None);
    }

    #[test]
    fn what_an_operator_has_just_done_is_in_the_next_document() {
        let mut admin = Admin::default();
        admin.set_document(NOW, document(1), QUICK);
        admin.renew_document();
        assert_eq!(admin.document(NOW), None);
    }

    fn expire(admin: &mut Admin, now: Time, poll: &Poll) {
        admin.readers[SHARED].expire(now, poll).unwrap();
        admin.forget_document(now);
    }

    /// With a socket at a path.
    fn opened(directory: &Path, poll: &Poll) -> Admin {
        let mut admin = Admin::default();
        let path = directory.join("socket");
        let opened = admin.readers[SHARED].open(&path, SockType::Stream, None, poll);
        opened.unwrap();
        admin
    }

    #[test]
    fn a_reader_of_a_large_document_takes_the_place_of_several() {
        let poll = Poll::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        for (portions, others) in [(1, MAX - 1), (MAX, 0)] {
            let mut admin = opened(directory.path(), &poll);
            let connect = |_| UnixStream::connect(directory.path().join("socket")).unwrap();
            let _clients: Vec<_> = (0..2 * MAX).map(connect).collect();
            let first = admin.readers[SHARED].accept(NOW, &poll).unwrap();
            let document = document(portions * PORTION);
            let served = admin.serve(NOW, SHARED, first.expect("a reader"), document, &poll);
            served.unwrap();
            let accept = || admin.readers[SHARED].accept(NOW, &poll).unwrap();
            assert_eq!(std::iter::from_fn(accept).count(), others, "{portions}");
        }
    }

    #[test]
    fn an_old_document_without_readers_is_forgotten() {
        let poll = Poll::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut admin = opened(directory.path(), &poll);
        let client = UnixStream::connect(directory.path().join("socket")).unwrap();
        let connection = admin.readers[SHARED].accept(NOW, &poll).unwrap().unwrap();
        let document = document(4 * PORTION);
        admin.set_document(NOW, document.clone(), QUICK);
        admin
            .serve(NOW, SHARED, connection, document, &poll)
            .unwrap();
        let old = NOW + CURRENT;
        expire(&mut admin, old, &poll);
        assert!(admin.last.is_some(), "it has a reader");
        assert!(admin.next_deadline() > Some(old));
        admin.readers[SHARED].remove(LISTENER + 1, &poll);
        drop(client);
        assert_eq!(admin.next_deadline(), Some(old));
        expire(&mut admin, old - QUICK, &poll);
        assert!(admin.document(old - QUICK).is_some(), "it is not old");
        expire(&mut admin, old, &poll);
        assert!(admin.last.is_none());
        assert_eq!(admin.next_deadline(), None);
    }
}
