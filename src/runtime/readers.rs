//! Who reads the status document. One copy of it is made for all who come within a while, and each
//! is sent it as fast as they read, a few at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;

use super::visitors::Visitors;
use super::{Ready, Runtime};
use crate::config::User;
use crate::policy::Time;
use crate::status::SOCKET;
use crate::sys::local::{self, Access, Carries};
use crate::sys::poll::{Interest, Poll};
use crate::sys::{privilege, process};

/// A document is given to whoever comes within this time.
const FRESH: Duration = Duration::from_millis(100);
/// And longer when it takes long to make: one part in so many of the master's time.
const SHARE: u32 = 50;
/// One who is sent so much counts for one; of a large document, fewer are sent in the same time.
const PORTION: usize = 256 * 1024;
/// Slow readers hold so many documents at the most; whoever comes then gets the last.
const DOCUMENTS: usize = 4;

/// One reader, and how much it has been sent.
#[derive(Debug)]
pub(super) struct Reader {
    connection: OwnedFd,
    document: Arc<[u8]>,
    sent: usize,
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl Reader {
    /// Sends what finds room; whether that was the rest, or nobody reads any more.
    fn send(&mut self) -> bool {
        let sent = local::send_some(self.connection.as_fd(), &self.document[self.sent..]);
        // A reader that has gone is one that has read enough.
        self.sent = sent.map_or(self.document.len(), |sent| self.sent + sent);
        self.sent == self.document.len()
    }
}

/// The last document, and when the next one may be made.
#[derive(Debug)]
struct Last {
    document: Arc<[u8]>,
    stale_at: Time,
}

/// All readers.
#[derive(Debug)]
pub(super) struct Readers {
    pub(super) visitors: Visitors<Reader>,
    last: Option<Last>,
    /// Documents that somebody may hold still.
    held: Vec<Weak<[u8]>>,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            visitors: Visitors::new(Ready::StatusDoor, Ready::Reader),
            last: None,
            held: Vec::new(),
        }
    }
}

impl Readers {
    /// Opens the socket: for root and the group of the mail owner, or for this user alone.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn open(&mut self, owner: User, poll: &Poll) -> anyhow::Result<()> {
        let group = privilege::is_root().then_some(owner.gid);
        self.visitors
            .open(Path::new(SOCKET), Carries::Stream, Access { group }, poll)
            .with_context(|| format!("no status socket: {SOCKET}"))
    }

    /// Has the next reader get a new document: something was done just now.
    pub(super) fn renew(&mut self) {
        if let Some(last) = &mut self.last {
            last.stale_at = Time::ZERO;
        }
    }

    /// The document for a reader who comes now, unless another one is to be made, and this one is
    /// forgotten.
    fn document(&mut self, now: Time) -> Option<Arc<[u8]>> {
        self.let_go();
        let crowded = self.held.len() >= DOCUMENTS;
        self.last.take_if(|last| now >= last.stale_at && !crowded);
        self.let_go();
        Some(self.last.as_ref()?.document.clone())
    }

    /// Lets go of what nobody holds: to know of it is to keep its memory.
    fn let_go(&mut self) {
        self.held.retain(|held| held.strong_count() > 0);
    }

    /// Keeps a document that took so long to make.
    fn set_document(&mut self, now: Time, text: Vec<u8>, took: Duration) -> Arc<[u8]> {
        let document: Arc<[u8]> = text.into();
        give_back(document.len());
        self.held.push(Arc::downgrade(&document));
        self.last = Some(Last {
            document: document.clone(),
            stale_at: now + FRESH.max(took * SHARE),
        });
        document
    }

    /// When [`Readers::pass`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let stale_at = self.last.as_ref().map(|last| last.stale_at);
        let forgets = stale_at.filter(|_| self.visitors.is_empty());
        let passes = self.visitors.next_deadline();
        passes.into_iter().chain(forgets).min()
    }

    /// Sees those out whose time is over. When nobody is left, nothing is, of their document.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn pass(&mut self, now: Time, poll: &Poll) -> io::Result<()> {
        let passed = self.visitors.pass(now, poll);
        let stale = self
            .last
            .take_if(|last| last.stale_at <= now && self.visitors.is_empty());
        if let Some(Last { document, .. }) = stale {
            let length = document.len();
            drop(document);
            self.let_go();
            give_back(length);
        }
        passed
    }

    /// Goes on sending to a reader that has read some.
    pub(super) fn ready(&mut self, at: usize, poll: &Poll) {
        if self.visitors.get_mut(at).is_some_and(Reader::send) {
            self.visitors.remove(at, poll);
        }
    }

    /// Sends the document to one who has come.
    fn serve(
        &mut self,
        now: Time,
        connection: OwnedFd,
        document: Arc<[u8]>,
        poll: &Poll,
    ) -> io::Result<()> {
        self.visitors.count_for(document.len().div_ceil(PORTION));
        let mut reader = Reader {
            connection,
            document,
            sent: 0,
        };
        match reader.send() {
            true => Ok(()),
            false => self.visitors.keep(now, reader, Interest::Writable, poll),
        }
    }
}

/// Has the system have the memory that a text of this length has left behind, if it is worth that.
fn give_back(length: usize) {
    if length > PORTION {
        process::trim_memory();
    }
}

impl Runtime {
    /// Serves those who want to read the status document.
    pub(super) fn show_status(&mut self, now: Time) {
        loop {
            let served = match self.readers.visitors.let_in(now, &self.poll) {
                Ok(None) => return,
                Ok(Some(connection)) => {
                    let document = self.readers.document(now);
                    let document = document.unwrap_or_else(|| self.make_document(now));
                    self.readers.serve(now, connection, document, &self.poll)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                return self.operators.complain(now, &mut self.log, &error);
            }
        }
    }

    fn make_document(&mut self, now: Time) -> Arc<[u8]> {
        let begun = self.setup.clock.now();
        let text = self.document(now);
        let took = self.setup.clock.now().saturating_sub(begun);
        self.readers.set_document(now, text, took)
    }
}

#[cfg(test)]
mod tests {
    use super::super::visitors::MAX;
    use super::*;
    use std::os::unix::net::UnixStream;

    const NOW: Time = Duration::from_secs(100);
    const QUICK: Duration = Duration::from_micros(50);

    #[test]
    fn who_comes_within_a_while_gets_the_same_document() {
        let mut readers = Readers::default();
        assert_eq!(readers.document(NOW), None);
        let made = readers.set_document(NOW, b"1".to_vec(), QUICK);
        let almost = NOW + FRESH - QUICK;
        let given = readers.document(almost).expect("a document");
        assert!(Arc::ptr_eq(&made, &given), "it is not copied");
        assert_eq!(readers.document(NOW + FRESH), None);
    }

    #[test]
    fn a_document_that_takes_long_to_make_is_made_less_often() {
        let mut readers = Readers::default();
        let took = Duration::from_millis(20);
        readers.set_document(NOW, b"1".to_vec(), took);
        assert!(readers.document(NOW + 49 * took).is_some());
        assert_eq!(readers.document(NOW + 50 * took), None);
    }

    #[test]
    fn what_was_steered_just_now_is_in_the_next_document() {
        let mut readers = Readers::default();
        readers.set_document(NOW, b"1".to_vec(), QUICK);
        readers.renew();
        assert_eq!(readers.document(NOW), None);
    }

    #[test]
    fn one_who_is_sent_much_keeps_others_waiting() {
        let poll = Poll::new().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        for (portions, others) in [(1, MAX - 1), (MAX, 0)] {
            let mut readers = Readers::default();
            let access = Access { group: None };
            let door = readers.visitors.open(&path, Carries::Stream, access, &poll);
            door.unwrap();
            let come = |_| UnixStream::connect(&path).unwrap();
            let _clients: Vec<_> = (0..2 * MAX).map(come).collect();
            let first = readers.visitors.let_in(NOW, &poll).unwrap();
            let document = vec![b'1'; portions * PORTION].into();
            let served = readers.serve(NOW, first.expect("a reader"), document, &poll);
            served.unwrap();
            let let_in = || readers.visitors.let_in(NOW, &poll).unwrap();
            let count = std::iter::from_fn(let_in).count();
            assert_eq!(count, others, "{portions}");
        }
    }

    #[test]
    fn a_document_that_nobody_reads_any_more_is_forgotten() {
        let poll = Poll::new().unwrap();
        let mut readers = Readers::default();
        let text = vec![b'1'; 4 * PORTION];
        let document = readers.set_document(NOW, text, QUICK);
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        readers.serve(NOW, ours.into(), document, &poll).unwrap();
        let stale = NOW + FRESH;
        readers.pass(stale, &poll).unwrap();
        assert!(readers.last.is_some(), "somebody reads it");
        assert!(readers.next_deadline() > Some(stale));
        readers.visitors.remove(0, &poll);
        drop(theirs);
        assert_eq!(readers.next_deadline(), Some(stale));
        readers.pass(stale - QUICK, &poll).unwrap();
        assert!(readers.document(stale - QUICK).is_some(), "it is fresh");
        readers.pass(stale, &poll).unwrap();
        assert!(readers.held.is_empty());
        assert_eq!(readers.next_deadline(), None);
    }

    #[test]
    fn slow_readers_hold_a_few_documents_and_no_more() {
        let mut readers = Readers::default();
        let mut held = Vec::new();
        for n in 0..DOCUMENTS as u8 {
            let now = NOW + FRESH * u32::from(n);
            assert_eq!(readers.document(now), None);
            held.push(readers.set_document(now, vec![n], QUICK));
        }
        let late = NOW + FRESH * 100;
        let last = readers.document(late).expect("a document");
        assert_eq!(last[..], [DOCUMENTS as u8 - 1]);
        held.remove(0);
        assert_eq!(readers.document(late), None, "somebody has gone");
    }
}
