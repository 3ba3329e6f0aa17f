//! One template: a process that has loaded a service's program and forks children on order. What it
//! says, and which process a new child is; see `man/master-protocol.7`.

mod handover;

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::socket::UnixCredentials;

use super::services::Listeners;
use super::token::Token;
use crate::config::Service;
use crate::policy::{Errno, Pid, Time};
use crate::protocol::template::{self, Answer, HELLO, KNOWN, LINE_MAX, Order, READY};
use crate::status::TemplateState;
use crate::sys::channel::{Channel, Found};
use crate::sys::child::ChildProcess;
use crate::sys::listen::Listener;
use crate::sys::poll::{Interest, Poll};
use crate::sys::signal::Signal;
use crate::sys::template_socket::TemplateSocket;

/// How long a template may take to load: as long as a child of an ordered pool to get ready.
const LOAD_TIME: Duration = Duration::from_secs(300);
/// How long it may take from an order until its child is known.
const FORK_TIME: Duration = Duration::from_secs(10);
/// How long it may take to end after it has closed its channel.
const END_TIME: Duration = Duration::from_secs(1);
/// Connections that are taken in one turn.
const CONNECTIONS: usize = 8;
/// Connections of other processes after which no more are taken until the next order.
const REFUSED_MAX: u32 = 32;

/// Why a template is ended, or has not forked.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) errno: Errno,
    pub(super) words: String,
}

impl Fault {
    pub(super) fn new(errno: i32, words: impl Into<String>) -> Self {
        Self {
            errno: Errno(errno),
            words: words.into(),
        }
    }

    fn rogue(words: impl Into<String>) -> Self {
        Self::new(libc::EPROTO, words)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let errno = super::errno(&error);
        Self::new(errno.0, format!("cannot be heard: {errno}"))
    }
}

/// How a template got on.
#[derive(Debug)]
pub(super) enum Progress {
    Loaded,
    /// The child that it was ordered to fork.
    Forked(Order, ChildProcess, Channel),
    /// It could not, or the child has left before it was known.
    Failed(Fault),
}

#[derive(Debug)]
pub(super) struct Template {
    pub(super) pid: Pid,
    pub(super) service: Arc<Service>,
    /// The listeners that it has, and its children will have.
    listeners: Vec<Weak<Listener>>,
    channel: Channel,
    socket: TemplateSocket,
    is_socket_watched: bool,
    /// A line whose end was not read yet.
    line: Vec<u8>,
    state: State,
    started: Time,
    /// The number of children that it has forked.
    pub(super) forked: u32,
    /// Other processes that have connected, to be logged.
    pub(super) refused: Vec<UnixCredentials>,
    refusals: u32,
}

#[derive(Debug)]
enum State {
    Loading(Time),
    Idle,
    Forking(Box<Fork>),
    /// It has closed its channel, as it does when it ends.
    Closed(Time, Option<Order>),
}

/// A child on its way.
#[derive(Debug)]
struct Fork {
    order: Order,
    until: Time,
    /// The template has said so.
    is_forked: bool,
    connection: Option<Channel>,
    /// The process that has said hello.
    child: Option<ChildProcess>,
    /// It has answered.
    is_ready: bool,
    /// It has left.
    is_lost: bool,
}

impl Template {
    /// A process that was just started with the other ends.
    pub(super) fn new(
        pid: Pid,
        service: Arc<Service>,
        listeners: &Listeners,
        channel: Channel,
        socket: TemplateSocket,
        now: Time,
    ) -> Self {
        Self {
            pid,
            service,
            listeners: listeners.iter().map(Arc::downgrade).collect(),
            channel,
            socket,
            is_socket_watched: false,
            line: Vec::new(),
            state: State::Loading(now + LOAD_TIME),
            started: now,
            forked: 0,
            refused: Vec::new(),
            refusals: 0,
        }
    }

    fn key(&self) -> usize {
        Token::Template(self.pid).key()
    }

    pub(super) fn status(&self) -> TemplateState {
        match self.state {
            State::Loading(_) => TemplateState::Loading,
            State::Idle => TemplateState::Ready,
            State::Forking(_) => TemplateState::Forking,
            State::Closed(..) => TemplateState::Ending,
        }
    }

    /// Has the poller report all that concerns it.
    ///
    /// # Errors
    /// The poller has no room ([`Poll::add`]): the template is ended.
    pub(super) fn watch(&mut self, poll: &Poll) -> io::Result<()> {
        poll.add(&self.channel, self.key(), Interest::Readable)?;
        self.watch_socket(poll)
    }

    fn watch_socket(&mut self, poll: &Poll) -> io::Result<()> {
        self.refusals = 0;
        if !self.is_socket_watched {
            poll.add(&self.socket, self.key(), Interest::Readable)?;
            self.is_socket_watched = true;
        }
        Ok(())
    }

    fn unwatch_socket(&mut self, poll: &Poll) {
        if std::mem::take(&mut self.is_socket_watched) {
            let _ = poll.remove(&self.socket);
        }
    }

    /// Has the poller report nothing more. The order that came to nothing, if there is one.
    pub(super) fn close(mut self, poll: &Poll) -> Option<Order> {
        // One that was closed is not in the set.
        let _ = poll.remove(&self.channel);
        self.unwatch_socket(poll);
        match self.state {
            State::Forking(fork) => {
                if let Some(connection) = &fork.connection {
                    let _ = poll.remove(connection);
                }
                Some(fork.order)
            }
            State::Closed(_, order) => order,
            State::Loading(_) | State::Idle => None,
        }
    }

    /// Kills the child that is on its way, if it is one of the master's and of no service.
    pub(super) fn kill_child(&self, is_taken: impl Fn(Pid) -> bool) {
        if let State::Forking(fork) = &self.state {
            let own = fork.child.as_ref().filter(|child| child.is_own());
            if let Some(child) = own.filter(|child| !is_taken(child.pid())) {
                child.send(Signal::SIGKILL);
            }
        }
    }

    /// Whether a process is the child that it is about to announce.
    pub(super) fn is_forking(&self, pid: Pid) -> bool {
        let State::Forking(fork) = &self.state else {
            return false;
        };
        fork.child.as_ref().is_some_and(|child| child.pid() == pid)
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether its children get the listeners that the service has.
    pub(super) fn has(&self, listeners: &Listeners) -> bool {
        let mut pairs = self.listeners.iter().zip(listeners);
        self.listeners.len() == listeners.len()
            && pairs.all(|(own, now)| std::ptr::eq(own.as_ptr(), Arc::as_ptr(now)))
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Loading(until) | State::Closed(until, _) => Some(*until),
            State::Forking(fork) => Some(fork.until),
            State::Idle => None,
        }
    }

    pub(super) fn age(&self, now: Time) -> Duration {
        now.saturating_sub(self.started)
    }

    /// When it is to be replaced, if it has loaded, by its age and the children that it has forked.
    pub(super) fn renewal_due(&self) -> Option<Time> {
        let pool = self.service.pool();
        let old = pool.preload_max_age.map(|age| self.started + age);
        let uses = pool.preload_max_uses.filter(|most| self.forked >= *most);
        let used_up = uses.map(|_| self.started);
        let has_loaded = !matches!(self.state, State::Loading(_));
        old.into_iter().chain(used_up).min().filter(|_| has_loaded)
    }

    /// What it has not done in time.
    pub(super) fn overdue(&self, now: Time) -> Option<Fault> {
        self.deadline().filter(|until| *until <= now)?;
        let (load, fork, end) = (LOAD_TIME.as_secs(), FORK_TIME.as_secs(), END_TIME.as_secs());
        let words = match &self.state {
            State::Loading(_) => format!("has not loaded within {load} s"),
            State::Forking(fork_) if fork_.child.is_some() && !fork_.is_forked => {
                format!("has not said within {fork} s that it has forked")
            }
            State::Forking(_) => format!("has not forked a child within {fork} s that says hello"),
            State::Closed(..) => format!("has closed its channel and not ended within {end} s"),
            State::Idle => return None,
        };
        Some(Fault::new(libc::ETIMEDOUT, words))
    }

    /// Orders it to fork a child. It must be idle.
    ///
    /// # Errors
    /// It cannot be told.
    pub(super) fn order(&mut self, now: Time, order: Order, poll: &Poll) -> Result<(), Fault> {
        self.state = State::Forking(Box::new(Fork {
            order,
            until: now + FORK_TIME,
            is_forked: false,
            connection: None,
            child: None,
            is_ready: false,
            is_lost: false,
        }));
        self.watch_socket(poll)?;
        let line = order.encode();
        let sent = self.channel.send(line.as_bytes());
        if sent != Ok(line.len()) {
            return Err(Fault::new(libc::EPIPE, "does not take orders"));
        }
        Ok(())
    }

    /// Reads all that is there, and checks it. `is_taken` tells the processes that are known.
    ///
    /// # Errors
    /// The template does not keep to the protocol.
    pub(super) fn proceed(
        &mut self,
        now: Time,
        poll: &Poll,
        is_taken: impl Fn(Pid) -> bool,
    ) -> Result<Option<Progress>, Fault> {
        if let Some(progress) = self.read_answers(now, poll)? {
            return Ok(Some(progress));
        }
        self.take_connections(poll)?;
        let State::Forking(fork) = &mut self.state else {
            return Ok(None);
        };
        fork.read_connection(poll, &is_taken)?;
        if !fork.is_forked {
            return Ok(None);
        }
        if fork.connection.is_none() && !fork.is_lost {
            return Err(Fault::rogue("has forked without connecting before"));
        }
        if !fork.is_ready && !fork.is_lost {
            return Ok(None);
        }
        let State::Forking(fork) = std::mem::replace(&mut self.state, State::Idle) else {
            return Ok(None);
        };
        let progress = fork.finish(&is_taken)?;
        if matches!(progress, Progress::Forked(..)) {
            self.forked = self.forked.saturating_add(1);
        }
        Ok(Some(progress))
    }

    fn read_answers(&mut self, now: Time, poll: &Poll) -> Result<Option<Progress>, Fault> {
        if matches!(self.state, State::Closed(..)) {
            return Ok(None);
        }
        let mut bytes = [0; LINE_MAX];
        match self.channel.read(&mut bytes) {
            Found::Nothing => return Ok(None),
            Found::Descriptors => return Err(Fault::rogue("has sent descriptors")),
            Found::End => {
                let _ = poll.remove(&self.channel);
                self.unwatch_socket(poll);
                let order = match &self.state {
                    State::Forking(fork) => Some(fork.order),
                    _ => None,
                };
                self.state = State::Closed(now + END_TIME, order);
                return Ok(None);
            }
            Found::Bytes(length) => self.line.extend_from_slice(&bytes[..length]),
        }
        let mut progress = None;
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            let line = &line[..end];
            // Each order has one answer: what comes after that is out of turn.
            progress = progress.or(self.answer(line, poll)?);
        }
        if self.line.len() >= LINE_MAX {
            return Err(Fault::rogue("has sent a line that is too long"));
        }
        Ok(progress)
    }

    fn answer(&mut self, line: &[u8], poll: &Poll) -> Result<Option<Progress>, Fault> {
        match (&mut self.state, Answer::decode(line)) {
            (State::Loading(_), Some(Answer::Ready)) => {
                self.state = State::Idle;
                Ok(Some(Progress::Loaded))
            }
            (State::Forking(fork), Some(Answer::Forked)) if !fork.is_forked => {
                fork.is_forked = true;
                Ok(None)
            }
            (State::Forking(fork), Some(Answer::Failed(why))) => {
                if let Some(connection) = &fork.connection {
                    // One of a child that is ready is not in the set.
                    let _ = poll.remove(connection);
                }
                let fault = Fault::new(libc::EAGAIN, format!("has not forked a child: {why}"));
                self.state = State::Idle;
                Ok(Some(Progress::Failed(fault)))
            }
            (_, answer) => {
                let when = answer.map_or("which is no answer", |_| "out of turn");
                let line = line.escape_ascii();
                Err(Fault::rogue(format!("has sent \"{line}\", {when}")))
            }
        }
    }

    fn take_connections(&mut self, poll: &Poll) -> Result<(), Fault> {
        if matches!(self.state, State::Closed(..)) {
            // It is about to end, and may have connected before.
            return Ok(());
        }
        let key = self.key();
        for _ in 0..CONNECTIONS {
            let Some(connection) = self.socket.accept()? else {
                return Ok(());
            };
            let peer = connection.peer()?;
            if peer.pid() != self.pid {
                self.refused.push(peer);
                self.refusals += 1;
                if self.refusals == REFUSED_MAX {
                    self.unwatch_socket(poll);
                }
                continue;
            }
            match &mut self.state {
                State::Forking(fork) if fork.connection.is_none() && !fork.is_lost => {
                    poll.add(&connection, key, Interest::Readable)?;
                    fork.connection = Some(connection);
                }
                _ => return Err(Fault::rogue("has connected out of turn")),
            }
        }
        Ok(())
    }
}

impl Fork {
    /// Reads what the child says until it is known.
    fn read_connection(
        &mut self,
        poll: &Poll,
        is_taken: &impl Fn(Pid) -> bool,
    ) -> Result<(), Fault> {
        while let Some(connection) = self.connection.as_ref().filter(|_| !self.is_ready) {
            let mut message = [0; template::SIZE];
            let (found, writer) = connection.read_from(&mut message);
            match (found, &self.child) {
                (Found::Nothing, _) => return Ok(()),
                (Found::Descriptors, _) => return Err(Fault::rogue("has sent descriptors")),
                (Found::End, _) => {
                    let _ = poll.remove(connection);
                    self.connection = None;
                    self.is_lost = true;
                }
                (Found::Bytes(template::SIZE), None) if message == HELLO => {
                    if is_taken(writer) {
                        let words = format!("has announced process {writer}, which is known");
                        return Err(Fault::rogue(words));
                    }
                    // From now on the process is this one, whatever becomes of its pid.
                    self.child = ChildProcess::open(writer).ok();
                    if self.child.is_none() || connection.send(&KNOWN) != Ok(KNOWN.len()) {
                        let _ = poll.remove(connection);
                        self.connection = None;
                        self.is_lost = true;
                    }
                }
                (Found::Bytes(template::SIZE), Some(child)) if message == READY => {
                    if child.pid() != writer {
                        let words = "has a second process answer for its child";
                        return Err(Fault::rogue(words));
                    }
                    let _ = poll.remove(connection);
                    self.is_ready = true;
                }
                (Found::Bytes(_), _) => {
                    let text = message.escape_ascii();
                    let words = format!("has a child that says \"{text}\" and no hello");
                    return Err(Fault::rogue(words));
                }
            }
        }
        Ok(())
    }

    /// The child, if it is the master's.
    fn finish(self, is_taken: &impl Fn(Pid) -> bool) -> Result<Progress, Fault> {
        // One that is ready may have ended since: it is a child like others.
        let known = self
            .child
            .filter(|child| self.is_ready || !child.has_ended());
        let (Some(child), Some(connection)) = (known, self.connection) else {
            let fault = Fault::new(libc::ECHILD, "has forked a child that left at once");
            return Ok(Progress::Failed(fault));
        };
        let pid = child.pid();
        if is_taken(pid) || !child.is_own() {
            return Err(Fault::rogue(format!(
                "has forked process {pid}, which is no child of the master: it must be forked \
                 twice, or with CLONE_PARENT"
            )));
        }
        connection.forget_writers()?;
        Ok(Progress::Forked(self.order, child, connection))
    }
}
