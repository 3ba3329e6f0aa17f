//! Admission of the master's own clients to a socket. However many they are, however slow, and
//! whatever they do: [`MAX`] are connected at a time, and as many are accepted in a [`PERIOD`]; each
//! has a time limit; the others wait in the socket's queue.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::SockType;

use crate::policy::Time;
use crate::runtime::token::Token;
use crate::sys::channel::Channel;
use crate::sys::local::LocalListener;
use crate::sys::poll::{Interest, Poll};

/// Clients that are connected at a time, and that are accepted in a period. One that costs much
/// counts as several of these.
pub(super) const MAX: usize = 16;
const PERIOD: Duration = Duration::from_millis(100);
/// How long a client may be connected; while others wait for its place, less.
const TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT_WHEN_FULL: Duration = Duration::from_millis(500);

/// The number of the socket itself; clients have higher ones.
pub(super) const LISTENER: usize = 0;

/// A socket and its clients. Until it is opened there are none.
#[derive(Debug)]
pub(super) struct Admission<T> {
    listener: Option<LocalListener>,
    /// The token of the listener, for [`LISTENER`], and of each client.
    token: fn(usize) -> Token,
    /// Whether the poller reports clients that wait.
    watched: bool,
    /// The clients so far have used up the time until then; each uses its share of a period.
    used_until: Time,
    /// No client is accepted before.
    paused_until: Time,
    /// With the time of their arrival, in this order, which is that of their time limits.
    clients: BTreeMap<usize, (Time, T)>,
    next: usize,
}

impl<T: AsFd> Admission<T> {
    pub(super) fn new(token: fn(usize) -> Token) -> Self {
        Self {
            listener: None,
            token,
            watched: false,
            used_until: Time::ZERO,
            paused_until: Time::ZERO,
            clients: BTreeMap::new(),
            next: LISTENER + 1,
        }
    }

    /// Opens the socket.
    ///
    /// # Errors
    /// The socket cannot be made at the path ([`LocalListener::open`]), or the poller has no room: there
    /// are no clients then.
    pub(super) fn open(
        &mut self,
        path: &Path,
        kind: SockType,
        group: Option<u32>,
        poll: &Poll,
    ) -> io::Result<()> {
        self.listener = Some(LocalListener::open(path, kind, group)?);
        self.watch(poll)
    }

    /// Goes on with the socket of a former program.
    ///
    /// # Errors
    /// The poller has no room: the socket is there, and clients wait in it.
    pub(super) fn resume(&mut self, listener: LocalListener, poll: &Poll) -> io::Result<()> {
        self.listener = Some(listener);
        self.watch(poll)
    }

    pub(super) fn listener(&self) -> Option<&LocalListener> {
        self.listener.as_ref()
    }

    /// The clients, in the order of their arrival.
    pub(super) fn clients(&self) -> impl Iterator<Item = &T> {
        self.clients.values().map(|(_, client)| client)
    }

    /// Has the poller report clients.
    fn watch(&mut self, poll: &Poll) -> io::Result<()> {
        if let Some(listener) = &self.listener {
            poll.add(listener, (self.token)(LISTENER).key(), Interest::Readable)?;
            self.watched = true;
        }
        Ok(())
    }

    /// The next client, if one waits and there is room. Otherwise the socket is looked at again
    /// when there may be room.
    ///
    /// # Errors
    /// The system's: descriptors have run out, say.
    pub(super) fn accept(&mut self, now: Time, poll: &Poll) -> io::Result<Option<Channel>> {
        let Some(listener) = &self.listener else {
            return Ok(None);
        };
        if self.used_until >= now {
            self.paused_until = self.used_until + PERIOD;
        }
        if self.enabled_at() > now {
            self.disable(poll);
            return Ok(None);
        }
        let accepted = listener.accept();
        match &accepted {
            Ok(None) => {}
            Ok(Some(_)) => {
                self.used_until = self.used_until.max(now.saturating_sub(PERIOD));
                self.count(1);
                if let Some(at) = self.first_when_full() {
                    self.remove(at, poll);
                }
            }
            // The client goes on waiting, and the poller would go on reporting it.
            Err(_) => {
                self.paused_until = now + PERIOD;
                self.disable(poll);
            }
        }
        accepted
    }

    /// Counts as many clients more.
    pub(super) fn count(&mut self, clients: usize) {
        let share = PERIOD / MAX as u32;
        self.used_until += share * u32::try_from(clients).unwrap_or(u32::MAX);
    }

    /// Keeps a client that was accepted, until it is [removed](Self::remove) or its time is over.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn keep(
        &mut self,
        now: Time,
        client: T,
        interest: Interest,
        poll: &Poll,
    ) -> io::Result<()> {
        let at = self.next;
        poll.add(&client, (self.token)(at).key(), interest)?;
        self.next = at % Token::INDEX_MAX + 1;
        self.clients.insert(at, (now, client));
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Some(&mut self.clients.get_mut(&at)?.1)
    }

    pub(super) fn remove(&mut self, at: usize, poll: &Poll) -> Option<T> {
        let (_, client) = self.clients.remove(&at)?;
        let _ = poll.remove(&client);
        Some(client)
    }

    /// Removes the clients whose time is over, and looks at the socket again if it is time.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn expire(&mut self, now: Time, poll: &Poll) -> io::Result<()> {
        while let Some((&at, (since, _))) = self.clients.first_key_value() {
            if *since + TIMEOUT > now {
                break;
            }
            self.remove(at, poll);
        }
        if self.listener.is_none() || self.watched || now < self.enabled_at() {
            return Ok(());
        }
        // Where the poller refuses it, it is asked again in the next period.
        self.paused_until = now + PERIOD;
        self.watch(poll)?;
        self.paused_until = Time::ZERO;
        Ok(())
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let first = self.clients.first_key_value();
        let first = first.map(|(_, (since, _))| *since + TIMEOUT);
        let disabled = self.listener.is_some() && !self.watched;
        first
            .into_iter()
            .chain(disabled.then(|| self.enabled_at()))
            .min()
    }

    /// The client that came first, when there is no room for another.
    fn first_when_full(&self) -> Option<usize> {
        let (at, _) = self.clients.first_key_value()?;
        (self.clients.len() >= MAX).then_some(*at)
    }

    /// From when on the next client may be accepted.
    fn enabled_at(&self) -> Time {
        let first = self.first_when_full().and_then(|at| self.clients.get(&at));
        let leaves = first.map(|(since, _)| *since + TIMEOUT_WHEN_FULL);
        self.paused_until.max(leaves.unwrap_or_default())
    }

    fn disable(&mut self, poll: &Poll) {
        if let Some(listener) = self.listener.as_ref().filter(|_| self.watched) {
            let _ = poll.remove(listener);
        }
        self.watched = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    /// A socket with its path, and a poller.
    struct Socket {
        admission: Admission<Channel>,
        poll: Poll,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Socket {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("socket");
            let poll = Poll::new().unwrap();
            let mut admission = Admission::new(Token::Status);
            let opened = admission.open(&path, SockType::Stream, None, &poll);
            opened.unwrap();
            Self {
                admission,
                poll,
                path,
                _directory: directory,
            }
        }

        fn connect(&self, count: usize) -> Vec<UnixStream> {
            let connect = |_| UnixStream::connect(&self.path).unwrap();
            (0..count).map(connect).collect()
        }

        /// The number of clients that are accepted now, and kept if they are to stay.
        fn accept(&mut self, now: Time, stay: bool) -> usize {
            let mut count = 0;
            while let Some(connection) = self.admission.accept(now, &self.poll).unwrap() {
                count += 1;
                if stay {
                    let kept = self
                        .admission
                        .keep(now, connection, Interest::Writable, &self.poll);
                    kept.unwrap();
                }
            }
            count
        }

        /// The number of clients that are accepted now, each of which counts as several.
        fn accept_as(&mut self, now: Time, several: usize) -> usize {
            let mut count = 0;
            while self.admission.accept(now, &self.poll).unwrap().is_some() {
                self.admission.count(several - 1);
                count += 1;
            }
            count
        }

        /// Does what is due. When there is more to do.
        fn expire(&mut self, now: Time) -> Option<Time> {
            self.admission.expire(now, &self.poll).unwrap();
            self.admission.next_deadline()
        }
    }

    const BEGIN: Time = Duration::from_secs(100);

    #[test]
    fn a_socket_that_was_not_opened_has_no_clients() {
        let poll = Poll::new().unwrap();
        let mut admission = Admission::<Channel>::new(Token::Status);
        assert!(admission.accept(BEGIN, &poll).unwrap().is_none());
        admission.expire(BEGIN, &poll).unwrap();
        assert_eq!(admission.next_deadline(), None);
    }

    #[test]
    fn a_period_has_room_for_sixteen_and_the_others_are_accepted_in_the_next() {
        let mut socket = Socket::new();
        let _clients = socket.connect(MAX + 3);
        assert_eq!(socket.accept(BEGIN, false), MAX);
        assert_eq!(socket.expire(BEGIN), Some(BEGIN + PERIOD));
        assert_eq!(socket.accept(BEGIN + PERIOD / 2, false), 0);
        assert_eq!(socket.expire(BEGIN + PERIOD), None);
        assert_eq!(socket.accept(BEGIN + PERIOD, false), 3);
        assert_eq!(socket.expire(BEGIN + PERIOD), None, "no client waits");
    }

    #[test]
    fn a_client_that_costs_much_takes_the_place_of_several() {
        let mut socket = Socket::new();
        let _clients = socket.connect(2 * MAX);
        let mut now = BEGIN;
        for _ in 0..3 {
            assert_eq!(socket.accept_as(now, 6), 3, "the third is begun");
            // The period has room for sixteen; eighteen take longer.
            let later = now + PERIOD * 18 / MAX as u32;
            assert_eq!(socket.expire(now), Some(later));
            socket.expire(later);
            now = later;
        }
    }

    #[test]
    fn a_client_that_costs_very_much_uses_up_some_periods() {
        let mut socket = Socket::new();
        let _clients = socket.connect(3);
        assert_eq!(socket.accept_as(BEGIN, 3 * MAX), 1);
        let later = BEGIN + PERIOD * 3;
        assert_eq!(socket.expire(BEGIN + PERIOD), Some(later));
        socket.expire(later);
        assert_eq!(socket.accept_as(later, 1), 2);
        // Periods without clients are not saved up.
        let _others = socket.connect(2 * MAX);
        assert_eq!(socket.accept_as(later + PERIOD * 100, 1), MAX);
    }

    #[test]
    fn the_first_client_makes_room_for_others_after_half_a_second() {
        let mut socket = Socket::new();
        let _clients = socket.connect(MAX + 3);
        assert_eq!(socket.accept(BEGIN, true), MAX);
        let later = BEGIN + TIMEOUT_WHEN_FULL;
        assert_eq!(socket.expire(BEGIN + PERIOD), Some(later));
        assert_eq!(socket.accept(BEGIN + PERIOD, true), 0);
        socket.expire(later);
        assert_eq!(socket.accept(later, true), 3);
        assert_eq!(socket.admission.clients.len(), MAX);
    }

    #[test]
    fn a_client_that_stays_too_long_is_removed_and_the_others_stay() {
        let mut socket = Socket::new();
        let _first = socket.connect(1);
        assert_eq!(socket.accept(BEGIN, true), 1);
        let _second = socket.connect(1);
        let later = BEGIN + Duration::from_secs(1);
        assert_eq!(socket.accept(later, true), 1);
        assert_eq!(socket.expire(later), Some(BEGIN + TIMEOUT));
        assert_eq!(socket.expire(BEGIN + TIMEOUT), Some(later + TIMEOUT));
        assert_eq!(socket.expire(later + TIMEOUT), None);
    }

    #[test]
    fn a_client_that_leaves_makes_room_at_once() {
        let mut socket = Socket::new();
        let _clients = socket.connect(MAX);
        assert_eq!(socket.accept(BEGIN, true), MAX);
        let _one_more = socket.connect(1);
        let later = BEGIN + PERIOD;
        assert_eq!(socket.accept(later, true), 0);
        assert!(
            socket
                .admission
                .remove(LISTENER + 1, &socket.poll)
                .is_some()
        );
        socket.expire(later);
        assert_eq!(socket.accept(later, true), 1);
    }
}
