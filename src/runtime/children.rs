//! What each child has of the system: its process, its channel, and what it prints.

use std::io;
use std::time::Duration;

use super::output::Output;
use super::services::Services;
use super::status::ReportSet;
use super::token::Token;
use crate::policy::{ByPid, Pid, ServiceId, Time};
use crate::sys::backchannel::Backchannel;
use crate::sys::channel::Channel;
use crate::sys::child::ChildProcess;
use crate::sys::poll::{Interest, Poll};

/// All that one child has.
#[derive(Debug)]
pub(super) struct ChildIo {
    pub(super) service: ServiceId,
    pub(super) process: ChildProcess,
    /// None once it is closed: the child is to leave, or has left.
    pub(super) channel: Option<ChildChannel>,
    /// Since when reads of its reports are measured, and the processor time that they have used.
    pub(super) slow_reads: Option<(Time, Duration)>,
    /// What it prints, where that is logged.
    pub(super) output: Option<Output>,
}

/// The master's end of what is descriptor 5 to a child.
#[derive(Debug)]
pub(super) enum ChildChannel {
    /// It is in the service's [`ReportSet`].
    Status(Channel),
    /// A child of an ordered pool. It is in the master's own set.
    Pool {
        backchannel: Box<Backchannel>,
        /// What the poller was told.
        interest: Interest,
    },
}

/// All children, and the templates, by pid. Not iterated but sorted, so that their order cannot matter.
#[derive(Debug, Default)]
pub(super) struct Children(ByPid<ChildIo>);

impl Children {
    /// All of them, in the order of their pids: for an upgrade.
    pub(super) fn sorted(&self) -> Vec<&ChildIo> {
        let mut all: Vec<_> = self.0.values().collect();
        all.sort_unstable_by_key(|child| child.process.pid());
        all
    }

    pub(super) fn get(&self, pid: Pid) -> Option<&ChildIo> {
        self.0.get(&pid)
    }

    pub(super) fn get_mut(&mut self, pid: Pid) -> Option<&mut ChildIo> {
        self.0.get_mut(&pid)
    }

    pub(super) fn insert(&mut self, child: ChildIo) {
        self.0.insert(child.process.pid(), child);
    }

    /// A child has ended: closes all that it had.
    pub(super) fn remove(&mut self, pid: Pid, services: &mut Services, poll: &Poll) {
        self.close_channel(pid, services, poll);
        if let Some(child) = self.0.remove(&pid) {
            // One that could not be added is not in the set.
            let _ = poll.remove(&child.process);
        }
    }

    /// Has the poller report what the child sends.
    ///
    /// # Errors
    /// The poller has no room ([`Poll::add`]). The caller has the child leave then, because it cannot be heard.
    pub(super) fn hear(
        &mut self,
        pid: Pid,
        services: &mut Services,
        poll: &Poll,
    ) -> io::Result<()> {
        let child = self.0.get(&pid);
        let Some((id, channel)) = child.and_then(|c| Some((c.service, c.channel.as_ref()?))) else {
            return Ok(());
        };
        match channel {
            ChildChannel::Status(channel) => {
                let service = services.get_mut(id).ok_or(io::ErrorKind::NotFound)?;
                let place = &mut service.activity().reports;
                let reports = match place {
                    Some(reports) => reports,
                    None => place.insert(ReportSet::new(id, poll)?),
                };
                reports.add(pid, channel)
            }
            ChildChannel::Pool { backchannel, .. } => poll.add(
                &**backchannel,
                Token::PoolChannel(pid).key(),
                Interest::Readable,
            ),
        }
    }

    /// Closes a child's channel, if it is open: the child finds out and leaves.
    pub(super) fn close_channel(&mut self, pid: Pid, services: &mut Services, poll: &Poll) {
        drop(self.take_channel(pid, services, poll));
    }

    /// Takes a child's channel, to close it.
    pub(super) fn take_channel(
        &mut self,
        pid: Pid,
        services: &mut Services,
        poll: &Poll,
    ) -> Option<ChildChannel> {
        let child = self.0.get_mut(&pid)?;
        let channel = child.channel.take()?;
        match &channel {
            ChildChannel::Status(channel) => {
                if let Some(reports) = services.get_mut(child.service).and_then(|s| s.reports()) {
                    reports.remove(channel);
                }
            }
            ChildChannel::Pool { backchannel, .. } => {
                let _ = poll.remove(&**backchannel);
            }
        }
        Some(channel)
    }
}
