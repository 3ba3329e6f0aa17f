//! What children print: logged where their service asks for that, and shown on the terminal with
//! `-d`; line by line, with the service's name and the child's pid. Otherwise only what a child wrote
//! to standard error last, and only if it fails.
//!
//! A child that prints a lot must neither cost other services their turns nor fill the disk. So its
//! channel is read once in a turn, and not again for [`REST`] when there was more; the child waits
//! meanwhile, as with a full pipe. A service has a hundred lines logged in a second, and the others
//! are counted.
//!
//! It is a socket, as systemd's journal has it, and no pipe: of a pipe, a child can hold the lock with
//! a write of a page of memory which never comes, and a read would wait for that.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::Runtime;
use super::services::{about, about_child, described};
use super::token::Token;
use super::upgrade::Saving;
use crate::config::Service;
use crate::log::{Log, Severity};
use crate::policy::{Limiter, Pid, Time};
use crate::sys::channel::{Channel, Found};
use crate::sys::poll::{Interest, Poll};
use crate::upgrade::OutputState;
pub(super) use crate::upgrade::Purpose;

/// Bytes read from one child in one turn.
const READ: usize = 16 * 1024;
/// How long a child that has more to read is not read again.
const REST: Duration = Duration::from_millis(100);
/// Reads of a child that has ended: as much as fits into a channel (`net.core.wmem_default`).
const LAST_READS: usize = 16;
/// The number of reads in the place of one, where no line is logged: that costs less.
const UNLOGGED_READS: usize = 4;
/// Bytes of a line. A longer one is logged as several.
const LINE_MAX: usize = 1000;
/// Lines of one service that are logged in a second.
pub(super) type Rate = Limiter<100, 1>;

/// Lines of a child that are kept for the case that it fails.
const LAST_WORDS: usize = 10;

/// The channel of one child's standard output and standard error.
#[derive(Debug)]
pub(super) struct Output {
    channel: Channel,
    /// The child's, which may be removed by now.
    service: Arc<Service>,
    purpose: Purpose,
    /// A line of which the end was not read yet.
    line: Vec<u8>,
    /// The last lines that were not logged.
    last_words: VecDeque<Vec<u8>>,
    /// Whether it is in the poller's set.
    watched: bool,
}

impl Output {
    /// The output of a new process, and the end that this gets; none where nothing is done with it.
    ///
    /// # Errors
    /// The system's, when descriptors have run out.
    pub(super) fn pair(
        purpose: Option<Purpose>,
        service: &Arc<Service>,
    ) -> io::Result<(Option<Self>, Option<OwnedFd>)> {
        let Some(purpose) = purpose else {
            return Ok((None, None));
        };
        let (channel, theirs) = Channel::pair()?;
        let output = Self::new(channel, service.clone(), purpose);
        Ok((Some(output), Some(theirs)))
    }

    fn new(channel: Channel, service: Arc<Service>, purpose: Purpose) -> Self {
        Self {
            channel,
            service,
            purpose,
            line: Vec::new(),
            last_words: VecDeque::new(),
            watched: false,
        }
    }

    /// What a former program had of a child's output.
    pub(super) fn resume(channel: Channel, service: Arc<Service>, state: OutputState) -> Self {
        let mut output = Self::new(channel, service, state.purpose);
        output.line = state.line;
        output.line.truncate(LINE_MAX);
        output.last_words = state.last_words.into_iter().take(LAST_WORDS).collect();
        output
    }

    /// What [`Self::resume`] needs.
    pub(super) fn save(&self, saving: &mut Saving) -> OutputState {
        OutputState {
            channel: saving.channel(&self.channel),
            config: saving.config(&self.service),
            purpose: self.purpose,
            line: self.line.clone(),
            last_words: self.last_words.iter().cloned().collect(),
        }
    }

    /// # Errors
    /// The poller's.
    pub(super) fn watch(&mut self, pid: Pid, poll: &Poll) -> io::Result<()> {
        if !self.watched {
            let key = Token::Output(pid).key();
            poll.add(self.channel.as_fd(), key, Interest::Readable)?;
            self.watched = true;
        }
        Ok(())
    }

    fn unwatch(&mut self, poll: &Poll) {
        if mem::take(&mut self.watched) {
            let _ = poll.remove(&self.channel);
        }
    }

    /// Logs the lines that end in these bytes, and keeps the rest.
    fn take(&mut self, bytes: &[u8], to: &mut Lines<'_>) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (mut text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            while self.line.len() + text.len() > LINE_MAX {
                let (fits, more) = text.split_at(LINE_MAX - self.line.len());
                self.line.extend_from_slice(fits);
                self.end_line(to);
                text = more;
            }
            self.line.extend_from_slice(text);
            if ends {
                self.end_line(to);
            }
        }
    }

    /// Writes the line as the purpose asks for it, or keeps it for a while if it is not logged.
    fn end_line(&mut self, to: &mut Lines<'_>) {
        let text = self.line.trim_ascii_end();
        if !text.is_empty() {
            let written = self.purpose != Purpose::LastWords && to.write(text, self.purpose);
            if !written || self.purpose == Purpose::Show {
                if self.last_words.len() == LAST_WORDS {
                    self.last_words.pop_front();
                }
                self.last_words.push_back(text.to_owned());
            }
        }
        self.line.clear();
    }
}

/// Where the lines of one child go.
struct Lines<'a> {
    now: Time,
    pid: Pid,
    service: &'a Service,
    rate: &'a mut Rate,
    log: &'a mut Log,
}

impl Lines<'_> {
    /// Writes a line, if the service's rate allows it. Whether it does.
    fn write(&mut self, line: &[u8], purpose: Purpose) -> bool {
        let Some(left_out) = self.rate.allow(self.now) else {
            return false;
        };
        self.report_left_out(left_out);
        let (name, pid) = (&self.service.name, self.pid);
        let text = String::from_utf8_lossy(line);
        let about = about_child(self.service, pid);
        if purpose == Purpose::Show {
            self.log.show(&text);
            return true;
        }
        let text = format!("{name}/{pid}: {text}");
        if purpose == Purpose::Log {
            self.log.detail(about, text);
        } else {
            self.log.write_about(Severity::Warning, about, text);
        }
        true
    }

    /// Says how many lines were left out before.
    fn report_left_out(&mut self, count: u64) {
        if count > 0 {
            let name = described(self.service);
            let text = format!("{name}: {count} lines of output were not logged");
            self.log
                .write_about(Severity::Warning, about(self.service), text);
        }
    }
}

/// The children that print, and the memory to read it.
#[derive(Debug)]
pub(super) struct Outputs {
    /// Children that are not read for a while, and until when, in this order.
    resting: VecDeque<(Time, Pid)>,
    /// Lines of services that were removed, of which children live on.
    removed: Rate,
    buffer: Box<[u8; READ]>,
}

impl Default for Outputs {
    fn default() -> Self {
        Self {
            resting: VecDeque::new(),
            removed: Rate::default(),
            buffer: Box::new([0; READ]),
        }
    }
}

impl Outputs {
    pub(super) fn next_deadline(&self) -> Option<Time> {
        Some(self.resting.front()?.0)
    }
}

impl Runtime {
    /// Logs what children have printed that are ready.
    pub(super) fn read_outputs(&mut self, now: Time) {
        while self.outputs.next_deadline().is_some_and(|at| at <= now) {
            let rested = self.outputs.resting.pop_front();
            let child = rested.and_then(|(_, pid)| self.children.get_mut(pid));
            if let Some((output, (_, pid))) = child.and_then(|c| c.output.as_mut()).zip(rested) {
                // Where the poller refuses it, it is read at the child's end.
                let _ = output.watch(pid, &self.poll);
            }
        }
        while let Some(pid) = self.turn.outputs.pop() {
            self.read_output(now, pid, 1);
        }
    }

    /// Logs what a child has left that has ended, and its last words if it has failed; closes the
    /// channel, which its own children may have, too.
    pub(super) fn finish_output(&mut self, now: Time, pid: Pid, failed: bool) {
        self.read_output(now, pid, LAST_READS);
        let child = self.children.get_mut(pid);
        let Some((id, mut output)) = child.and_then(|c| Some((c.service, c.output.take()?))) else {
            return;
        };
        output.unwatch(&self.poll);
        let (rate, last_words) = match self.services.get_mut(id).map(|io| io.activity()) {
            Some(activity) => (&mut activity.output, &mut activity.last_words),
            None => (&mut self.outputs.removed, &mut Rate::default()),
        };
        let service = output.service.clone();
        let mut lines = Lines {
            now,
            pid,
            service: &service,
            rate,
            log: &mut self.log,
        };
        output.end_line(&mut lines);
        let left_out = lines.rate.take_suppressed();
        lines.report_left_out(left_out);
        if failed {
            // Also when what came before has used the rate up.
            lines.rate = last_words;
            for line in mem::take(&mut output.last_words) {
                lines.write(&line, Purpose::LastWords);
            }
        }
    }

    /// Logs what a child has printed, with at most `reads` reads.
    pub(super) fn read_output(&mut self, now: Time, pid: Pid, reads: usize) {
        let Some(child) = self.children.get_mut(pid) else {
            return;
        };
        let Some(output) = child.output.as_mut() else {
            return;
        };
        let io = self.services.get_mut(child.service);
        // What is not logged costs less, and the child would not wait for /dev/null.
        let reads = if output.purpose == Purpose::LastWords {
            reads * UNLOGGED_READS
        } else {
            reads
        };
        let service = output.service.clone();
        let mut lines = Lines {
            now,
            pid,
            service: &service,
            rate: io.map_or(&mut self.outputs.removed, |io| &mut io.activity().output),
            log: &mut self.log,
        };
        for _ in 0..reads {
            match output.channel.read(&mut *self.outputs.buffer) {
                Found::Nothing => return,
                // The child has closed it, and may live on.
                Found::End | Found::Descriptors => return output.unwatch(&self.poll),
                Found::Bytes(length) => {
                    output.take(&self.outputs.buffer[..length], &mut lines);
                    if length < READ {
                        return;
                    }
                }
            }
        }
        output.unwatch(&self.poll);
        self.outputs.resting.push_back((now + REST, pid));
    }
}
