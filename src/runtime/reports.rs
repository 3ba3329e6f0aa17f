//! What children report on their status channels: when it is read, and how much of it.

use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::{Ready, Runtime, spare};
use crate::policy::{ByPid, Event, Pid, ServiceId, Table, Time};
use crate::protocol::{self, StatusReport};
use crate::sys::channel::{More, StatusChannel};
use crate::sys::poll::{Interest, Poll};
use crate::sys::process::Dead;

/// Bytes read at a time: as many reports as most children have made in the longest wait.
const READ: usize = 64 * StatusReport::SIZE;
/// After so many reads of one service in one turn there is no other: a child that floods its channel
/// must not keep the others waiting.
const READS_MAX: usize = 64;
/// Children of a service that are looked for at a time.
const CHILDREN: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// While a service has more than one child available, nobody misses its reports for a moment: so
/// long for each child to spare. To be woken up for one costs more than to read many.
const REPORTS_WAIT: Duration = Duration::from_millis(1);
/// More children to spare make reports wait no longer: nobody is told of older counts, and no child
/// waits for room, of which Linux has enough for 278 (`net.core.wmem_default`).
const SPARE_MAX: u32 = 4;
/// So many reports in that time, and the next are waited for without a look at the first.
const REPORTS_MANY: usize = 8;

/// A service keeps so many channels of children that have ended for those that come: as many as
/// come and go at a time.
const KEPT_MAX: usize = 8;

/// One child's channel.
#[derive(Debug)]
struct Source {
    channel: StatusChannel,
    service: ServiceId,
    /// Nobody's before its child was started, and again when that has ended.
    pid: Option<Pid>,
}

/// The channels of a service's children, which the poller sees as one.
#[derive(Debug)]
struct Group {
    channels: Poll,
    /// What they report waits for more to come, and the poller does not tell of it meanwhile.
    deferred: bool,
    /// Places of channels that wait for the next child.
    kept: Vec<usize>,
}

/// The status channels of all children but those of ordered pools.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// By place, which is the key in a group.
    sources: Vec<Option<Source>>,
    free: Vec<usize>,
    places: ByPid<usize>,
    /// By service, made when the first child needs it.
    groups: Vec<Option<Box<Group>>>,
    /// Services whose reports wait, and until when; those that have no group any more do no harm.
    deferred: Vec<ServiceId>,
    deferred_until: Option<Time>,
    /// Places that have something to read; kept for its memory.
    ready: Vec<usize>,
}

impl Reports {
    /// A channel for a child that is about to be started: its place.
    ///
    /// # Errors
    /// The system's; so there is no child that could not be heard.
    pub(super) fn open(&mut self, service: ServiceId, poll: &Poll) -> io::Result<usize> {
        while let Some(place) = self.make_group(service, poll)?.kept.pop() {
            if self.source(place).is_some_and(|s| s.channel.is_as_new()) {
                return Ok(place);
            }
            self.close(place);
        }
        let channel = StatusChannel::new()?;
        let place = self.free.last().copied().unwrap_or(self.sources.len());
        let group = self.make_group(service, poll)?;
        group
            .channels
            .add(channel.as_fd(), place, Interest::Readable)?;
        let source = Source {
            channel,
            service,
            pid: None,
        };
        match self.free.pop() {
            Some(place) => self.sources[place] = Some(source),
            None => self.sources.push(Some(source)),
        }
        Ok(place)
    }

    fn source(&self, place: usize) -> Option<&Source> {
        self.sources.get(place)?.as_ref()
    }

    /// What the child at a place is to have as its descriptor.
    pub(super) fn childs_end(&self, place: usize) -> Option<BorrowedFd<'_>> {
        Some(self.source(place)?.channel.childs_end())
    }

    fn make_group(&mut self, id: ServiceId, poll: &Poll) -> io::Result<&mut Group> {
        let least = id.index() + 1;
        if self.groups.len() < least {
            self.groups.resize_with(least, || None);
        }
        let group = &mut self.groups[id.index()];
        if group.is_none() {
            let channels = Poll::taking(CHILDREN)?;
            let key = Ready::Reports(id).key();
            poll.add(channels.as_fd(), key, Interest::Readable)?;
            *group = Some(Box::new(Group {
                channels,
                deferred: false,
                kept: Vec::new(),
            }));
        }
        group.as_deref_mut().ok_or(io::ErrorKind::NotFound.into())
    }

    fn group(&mut self, id: ServiceId) -> Option<&mut Group> {
        self.groups.get_mut(id.index())?.as_deref_mut()
    }

    /// The child was started.
    pub(super) fn started(&mut self, place: usize, pid: Pid) {
        if let Some(source) = self.sources[place].as_mut() {
            source.pid = Some(pid);
            self.places.insert(pid, place);
        }
    }

    /// The child has ended, and its last report was read. The next one may have its channel.
    pub(super) fn ended(&mut self, pid: Pid) {
        let Some(place) = self.places.remove(&pid) else {
            return;
        };
        let Some(source) = self.sources[place].as_mut() else {
            return;
        };
        source.pid = None;
        let service = source.service;
        match self.group(service) {
            Some(group) if group.kept.len() < KEPT_MAX => group.kept.push(place),
            _ => self.close(place),
        }
    }

    /// Closes the channel at a place: the child, if there is one, is to leave.
    pub(super) fn close(&mut self, place: usize) {
        if let Some(source) = self.sources[place].take() {
            if let Some(pid) = source.pid {
                self.places.remove(&pid);
            }
            self.free.push(place);
            if let Some(group) = self.group(source.service) {
                group.kept.retain(|&kept| kept != place);
                group.channels.close(source.channel);
            }
        }
    }

    /// Closes a child's channel, if it has one.
    pub(super) fn close_of(&mut self, pid: Pid) {
        if let Some(place) = self.place_of(pid) {
            self.close(place);
        }
    }

    /// The service has no children to hear any more.
    pub(super) fn forget(&mut self, id: ServiceId, poll: &Poll) {
        let kept = self.group(id).map(|group| mem::take(&mut group.kept));
        for place in kept.unwrap_or_default() {
            self.close(place);
        }
        let group = self.groups.get_mut(id.index()).and_then(Option::take);
        if let Some(group) = group {
            poll.close(group.channels);
        }
    }

    /// Where a child's channel is.
    pub(super) fn place_of(&self, pid: Pid) -> Option<usize> {
        self.places.get(&pid).copied()
    }

    pub(super) fn deferred_until(&self) -> Option<Time> {
        self.deferred_until
    }

    /// Lets what a service's children report wait for more to come, if that is possible.
    pub(super) fn defer(&mut self, now: Time, id: ServiceId, table: &Table, poll: &Poll) -> bool {
        let until = wait_until(now, table, id);
        let group = self.group(id).filter(|group| !group.deferred);
        let Some((until, group)) = until.zip(group) else {
            return false;
        };
        if group.ask(id, poll, Interest::Nothing).is_err() {
            return false;
        }
        group.deferred = true;
        self.deferred.push(id);
        self.deferred_until = earlier(self.deferred_until, Some(until));
        true
    }

    /// Ends that wait; false if the poller does not want to.
    fn expect(&mut self, id: ServiceId, poll: &Poll) -> bool {
        self.group(id).is_none_or(|group| {
            group.deferred = group.ask(id, poll, Interest::Readable).is_err();
            !group.deferred
        })
    }

    /// Looks which children of a service have reported something: `ready` has some of their places.
    fn look(&mut self, id: ServiceId) {
        let mut ready = mem::take(&mut self.ready);
        ready.clear();
        if let Some(group) = self.group(id) {
            // A wait for nothing fails for nothing; should it, the next turn looks again.
            let _ = group.channels.wait(Duration::ZERO, &mut ready);
        }
        self.ready = ready;
    }
}

impl Group {
    fn ask(&self, id: ServiceId, poll: &Poll, interest: Interest) -> io::Result<()> {
        poll.modify(self.channels.as_fd(), Ready::Reports(id).key(), interest)
    }
}

impl Runtime {
    /// Reads the reports of every service that has some, and of every child that has ended: its
    /// last report may have come after the poller looked.
    pub(super) fn read_reports(&mut self, now: Time) {
        self.read_deferred(now);
        let mut reported = mem::take(&mut self.turn.reported);
        for id in reported.drain(..) {
            self.read_reports_of(now, id);
        }
        self.turn.reported = reported;
        let dead = mem::take(&mut self.turn.dead);
        for Dead { pid, .. } in &dead {
            self.read_last_reports(now, *pid);
        }
        self.turn.dead = dead;
    }

    fn read_last_reports(&mut self, now: Time, pid: Pid) {
        let Some(place) = self.reports.place_of(pid) else {
            return;
        };
        for _ in 0..READS_MAX {
            if self.read_reports_at(now, place).1 != More::Perhaps {
                return;
            }
        }
    }

    /// Reads the reports that have waited long enough. Where many have come, more will.
    fn read_deferred(&mut self, now: Time) {
        let until = self.reports.deferred_until;
        if until.is_none_or(|until| now < until) {
            return;
        }
        self.reports.deferred_until = None;
        let mut deferred = mem::take(&mut self.reports.deferred);
        deferred.retain(|&id| {
            let many = self.read_reports_of(now, id) >= REPORTS_MANY;
            let mut until = wait_until(now, &self.table, id).filter(|_| many);
            if until.is_none() && !self.reports.expect(id, &self.poll) {
                until = Some(now + REPORTS_WAIT);
            }
            self.reports.deferred_until = earlier(self.reports.deferred_until, until);
            until.is_some()
        });
        self.reports.deferred = deferred;
    }

    /// Reads what the children of a service have reported, and tells how much that was.
    fn read_reports_of(&mut self, now: Time, id: ServiceId) -> usize {
        let (mut count, mut reads, mut more) = (0, 0, true);
        while more && reads < READS_MAX {
            self.reports.look(id);
            let ready = mem::take(&mut self.reports.ready);
            more = ready.len() == CHILDREN.get();
            reads += ready.len();
            for &place in &ready {
                let (reports, left) = self.read_reports_at(now, place);
                count += reports;
                more |= left == More::Perhaps;
            }
            self.reports.ready = ready;
        }
        count
    }

    /// Reads some of what a child has reported: how many reports, and whether there may be more.
    fn read_reports_at(&mut self, now: Time, place: usize) -> (usize, More) {
        let Some(source) = self.reports.source(place) else {
            return (0, More::Never);
        };
        let mut bytes = [0; READ];
        let (id, pid) = (source.service, source.pid);
        let (length, more) = source.channel.read(&mut bytes);
        let Some(pid) = pid.filter(|_| more != More::Never) else {
            // Shut down, or what one writes whom a former child has left behind.
            self.reports.close(place);
            return (0, More::Never);
        };
        let mut count = 0;
        for what in protocol::reports(pid, &bytes[..length]) {
            count += 1;
            self.step(now, Event::written(id, pid, what));
        }
        (count, more)
    }
}

/// Until when the service's reports can wait, if at all.
fn wait_until(now: Time, table: &Table, id: ServiceId) -> Option<Time> {
    let spare = spare(table, id);
    (spare > 0).then(|| now + REPORTS_WAIT * spare.min(SPARE_MAX))
}

/// The earlier of two times, where none is never.
fn earlier(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    one.into_iter().chain(other).min()
}
