//! Whoever comes to the master itself, through a socket of its own. However many they are, however
//! slow, and whatever they do: so many are let in at a time and in a while, each has so long, and
//! the others wait outside.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::Ready;
use crate::policy::Time;
use crate::sys::local::{Access, Carries, Door};
use crate::sys::poll::{Interest, Poll};

/// So many are inside at a time, and let in within a [`PERIOD`]; one who costs much counts for
/// several of these.
pub(super) const MAX: usize = 16;
const PERIOD: Duration = Duration::from_millis(100);
/// Each has so long, and only so long while others wait and there is no room for them.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_IN_A_CROWD: Duration = Duration::from_millis(500);

/// One who was let in.
#[derive(Debug)]
struct Visitor<T> {
    since: Time,
    visit: T,
}

/// A door, and those who came in through it. Until it is opened nobody comes.
#[derive(Debug)]
pub(super) struct Visitors<T> {
    door: Option<Door>,
    /// What the poller's keys stand for: the door, and a visitor.
    at_door: Ready,
    inside: fn(usize) -> Ready,
    /// Whether the poller reports who waits outside.
    watched: bool,
    /// Of those who may come in before this, so many have; more than there may be are taken from the
    /// periods to come.
    period_ends: Time,
    let_in: usize,
    /// By the order in which they came, which is that in which their time ends.
    visitors: BTreeMap<usize, Visitor<T>>,
    next: usize,
}

impl<T: AsFd> Visitors<T> {
    pub(super) fn new(at_door: Ready, inside: fn(usize) -> Ready) -> Self {
        Self {
            door: None,
            at_door,
            inside,
            watched: false,
            period_ends: Time::ZERO,
            let_in: 0,
            visitors: BTreeMap::new(),
            next: 0,
        }
    }

    /// Opens the door.
    ///
    /// # Errors
    /// The system's, or the poller's.
    pub(super) fn open(
        &mut self,
        path: &Path,
        carries: Carries,
        access: Access,
        poll: &Poll,
    ) -> io::Result<()> {
        let door = Door::open(path, carries, access)?;
        poll.add(door.as_fd(), self.at_door.key(), Interest::Readable)?;
        self.door = Some(door);
        self.watched = true;
        Ok(())
    }

    /// Lets the next one in, if somebody waits and there is room. Otherwise the door is looked at
    /// again when there may be.
    ///
    /// # Errors
    /// The system's: descriptors have run out, say.
    pub(super) fn let_in(&mut self, now: Time, poll: &Poll) -> io::Result<Option<OwnedFd>> {
        let Some(door) = &self.door else {
            return Ok(None);
        };
        if let Some(over) = now.checked_sub(self.period_ends) {
            let periods = (over.div_duration_f64(PERIOD) as usize).saturating_add(1);
            self.let_in = self.let_in.saturating_sub(MAX.saturating_mul(periods));
            self.period_ends = now + PERIOD;
        }
        if self.looks_again() > now {
            self.look_away(poll);
            return Ok(None);
        }
        self.let_in += 1;
        let accepted = door.accept();
        if let (Ok(Some(_)), Some(at)) = (&accepted, self.first_of_a_crowd()) {
            self.remove(at, poll);
        }
        if accepted.is_err() {
            // Whoever waits goes on waiting, and the poller would go on saying so.
            self.pause(now);
            self.look_away(poll);
        }
        accepted
    }

    /// Counts the one who was let in last for so many, at least one.
    pub(super) fn count_for(&mut self, several: usize) {
        self.let_in = self.let_in.saturating_add(several.saturating_sub(1));
    }

    /// Keeps one who was let in and has something to write or to say.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn keep(
        &mut self,
        now: Time,
        visit: T,
        interest: Interest,
        poll: &Poll,
    ) -> io::Result<()> {
        let at = self.next;
        let key = (self.inside)(at).key();
        poll.add(visit.as_fd(), key, interest)?;
        self.next = self.next.wrapping_add(1) & (usize::MAX >> Ready::KIND);
        let since = now;
        self.visitors.insert(at, Visitor { since, visit });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.visitors.is_empty()
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Some(&mut self.visitors.get_mut(&at)?.visit)
    }

    /// Sees one out.
    pub(super) fn remove(&mut self, at: usize, poll: &Poll) -> Option<T> {
        let Visitor { visit, .. } = self.visitors.remove(&at)?;
        let _ = poll.remove(&visit);
        Some(visit)
    }

    /// Sees those out whose time is over, and looks at the door again if there is room.
    ///
    /// # Errors
    /// The poller's.
    pub(super) fn pass(&mut self, now: Time, poll: &Poll) -> io::Result<()> {
        while let Some((&at, visitor)) = self.visitors.first_key_value() {
            if visitor.since + PATIENCE > now {
                break;
            }
            self.remove(at, poll);
        }
        let Some(door) = self.unwatched().filter(|_| self.looks_again() <= now) else {
            return Ok(());
        };
        let added = poll.add(door.as_fd(), self.at_door.key(), Interest::Readable);
        self.watched = added.is_ok();
        if !self.watched {
            self.pause(now);
        }
        added
    }

    /// When [`Visitors::pass`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let first = self.visitors.first_key_value();
        let first = first.map(|(_, visitor)| visitor.since + PATIENCE);
        let again = self.unwatched().map(|_| self.looks_again());
        first.into_iter().chain(again).min()
    }

    /// The door, while the poller does not look at it.
    fn unwatched(&self) -> Option<&Door> {
        self.door.as_ref().filter(|_| !self.watched)
    }

    /// Who came first, when there is no room for another.
    fn first_of_a_crowd(&self) -> Option<usize> {
        let first = self.visitors.first_key_value();
        first
            .map(|(&at, _)| at)
            .filter(|_| self.visitors.len() >= MAX)
    }

    /// From when on the next one may be let in.
    fn looks_again(&self) -> Time {
        let pause = match u32::try_from(self.let_in / MAX).unwrap_or(u32::MAX) {
            0 => Time::ZERO,
            periods => self.period_ends + PERIOD * (periods - 1),
        };
        let first = self
            .first_of_a_crowd()
            .and_then(|at| self.visitors.get(&at));
        let leaves = first.map(|first| first.since + PATIENCE_IN_A_CROWD);
        pause.max(leaves.unwrap_or_default())
    }

    /// The system lacks something: better tried again a little later.
    fn pause(&mut self, now: Time) {
        self.period_ends = now + PERIOD;
        self.let_in = self.let_in.max(MAX);
    }

    fn look_away(&mut self, poll: &Poll) {
        let watched = std::mem::take(&mut self.watched);
        if let Some(door) = self.door.as_ref().filter(|_| watched) {
            let _ = poll.remove(door);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    /// A door with its path, and a poller that nobody asks.
    struct Scene {
        visitors: Visitors<OwnedFd>,
        poll: Poll,
        path: PathBuf,
        _directory: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("door");
            let poll = Poll::new().unwrap();
            let mut visitors = Visitors::new(Ready::StatusDoor, Ready::Reader);
            let access = Access { group: None };
            visitors
                .open(&path, Carries::Stream, access, &poll)
                .unwrap();
            Self {
                visitors,
                poll,
                path,
                _directory: directory,
            }
        }

        fn come(&self, count: usize) -> Vec<UnixStream> {
            let come = |_| UnixStream::connect(&self.path).unwrap();
            (0..count).map(come).collect()
        }

        /// How many are let in now, and kept if they are to stay.
        fn let_in(&mut self, now: Time, stay: bool) -> usize {
            let mut count = 0;
            while let Some(visit) = self.visitors.let_in(now, &self.poll).unwrap() {
                count += 1;
                if stay {
                    let kept = self
                        .visitors
                        .keep(now, visit, Interest::Writable, &self.poll);
                    kept.unwrap();
                }
            }
            count
        }

        /// How many are let in now, each of whom counts for so many.
        fn let_in_for(&mut self, now: Time, several: usize) -> usize {
            let mut count = 0;
            while self.visitors.let_in(now, &self.poll).unwrap().is_some() {
                self.visitors.count_for(several);
                count += 1;
            }
            count
        }

        /// What is due is done; when there is more to do.
        fn pass(&mut self, now: Time) -> Option<Time> {
            self.visitors.pass(now, &self.poll).unwrap();
            self.visitors.next_deadline()
        }
    }

    const BEGIN: Time = Duration::from_secs(100);

    #[test]
    fn nobody_comes_through_a_door_that_was_not_opened() {
        let poll = Poll::new().unwrap();
        let mut visitors = Visitors::<OwnedFd>::new(Ready::StatusDoor, Ready::Reader);
        assert!(visitors.let_in(BEGIN, &poll).unwrap().is_none());
        visitors.pass(BEGIN, &poll).unwrap();
        assert_eq!(visitors.next_deadline(), None);
    }

    #[test]
    fn so_many_are_let_in_within_a_period_and_the_others_in_the_next() {
        let mut scene = Scene::new();
        let _clients = scene.come(MAX + 3);
        assert_eq!(scene.let_in(BEGIN, false), MAX);
        assert_eq!(scene.pass(BEGIN), Some(BEGIN + PERIOD));
        assert_eq!(scene.let_in(BEGIN + PERIOD / 2, false), 0);
        assert_eq!(scene.pass(BEGIN + PERIOD), None);
        assert_eq!(scene.let_in(BEGIN + PERIOD, false), 3);
        assert_eq!(scene.pass(BEGIN + PERIOD), None, "nobody waits");
    }

    #[test]
    fn one_who_costs_much_takes_the_place_of_several() {
        let mut scene = Scene::new();
        let _clients = scene.come(2 * MAX);
        assert_eq!(scene.let_in_for(BEGIN, 6), 3, "the third is begun");
        // Of three times six, two are left over; then three times six again, and four.
        for (periods, count) in [(1, 3), (2, 2), (3, 3)] {
            let now = BEGIN + PERIOD * periods;
            assert_eq!(scene.pass(now - PERIOD), Some(now));
            scene.pass(now);
            assert_eq!(scene.let_in_for(now, 6), count, "{periods}");
        }
    }

    #[test]
    fn one_who_costs_very_much_is_alone_for_some_periods() {
        let mut scene = Scene::new();
        let _clients = scene.come(3);
        assert_eq!(scene.let_in_for(BEGIN, 3 * MAX), 1);
        let later = BEGIN + PERIOD * 3;
        assert_eq!(scene.pass(BEGIN + PERIOD), Some(later));
        scene.pass(later);
        assert_eq!(scene.let_in_for(later, 1), 2);
        // What is long past is forgiven, and not saved up.
        let _others = scene.come(2 * MAX);
        assert_eq!(scene.let_in_for(later + PERIOD * 100, 1), MAX);
    }

    #[test]
    fn whoever_came_first_makes_room_for_a_crowd_after_a_while() {
        let mut scene = Scene::new();
        let _clients = scene.come(MAX + 3);
        assert_eq!(scene.let_in(BEGIN, true), MAX);
        let later = BEGIN + PATIENCE_IN_A_CROWD;
        assert_eq!(scene.pass(BEGIN + PERIOD), Some(later));
        assert_eq!(scene.let_in(BEGIN + PERIOD, true), 0);
        scene.pass(later);
        assert_eq!(scene.let_in(later, true), 3);
        assert_eq!(scene.visitors.visitors.len(), MAX);
    }

    #[test]
    fn who_stays_too_long_is_seen_out_and_the_others_stay() {
        let mut scene = Scene::new();
        let _first = scene.come(1);
        assert_eq!(scene.let_in(BEGIN, true), 1);
        let _second = scene.come(1);
        let later = BEGIN + Duration::from_secs(1);
        assert_eq!(scene.let_in(later, true), 1);
        assert_eq!(scene.pass(later), Some(BEGIN + PATIENCE));
        assert_eq!(scene.pass(BEGIN + PATIENCE), Some(later + PATIENCE));
        assert_eq!(scene.pass(later + PATIENCE), None);
    }

    #[test]
    fn who_leaves_makes_room_at_once() {
        let mut scene = Scene::new();
        let _clients = scene.come(MAX);
        assert_eq!(scene.let_in(BEGIN, true), MAX);
        let _one_more = scene.come(1);
        let later = BEGIN + PERIOD;
        assert_eq!(scene.let_in(later, true), 0);
        assert!(scene.visitors.remove(0, &scene.poll).is_some());
        scene.pass(later);
        assert_eq!(scene.let_in(later, true), 1);
    }
}
