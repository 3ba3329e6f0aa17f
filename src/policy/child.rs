//! One child, and what its end says.

use super::deadlines::Termination;
use super::pool::{Member, State};
use super::{ExitStatus, Pid, Service, Time};
use crate::protocol::Availability;

/// SIGTERM and SIGKILL, the numbers of which are the same on every system.
const SENT_BY_US: [i32; 2] = [15, 9];

/// One child: Postfix's `MASTER_PROC`.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) generation: u32,
    /// As it reported last; a new child counts as available. Not used in ordered pools.
    pub(super) availability: Availability,
    /// How often it became available again, that is, how many clients it has served.
    pub(super) uses: u32,
    /// How many clients it has reported, the one that it has included.
    pub(super) clients: u32,
    pub(super) started: Time,
    /// It was told to leave by the end of its status channel, or cannot be heard any more. Not used
    /// in ordered pools.
    pub(super) leaving: bool,
    /// It has not executed its program.
    pub(super) hanging: bool,
    /// It has had its client since then, as it reported.
    pub(super) busy_since: Option<Time>,
    /// It was told to leave then.
    pub(super) leave_since: Option<Time>,
    pub(super) termination: Termination,
    pub(super) deadline: Option<Time>,
    /// What it is to its ordered pool.
    pub(super) member: Option<Member>,
}

impl Child {
    pub(super) fn new(generation: u32, now: Time, member: Option<Member>) -> Self {
        Self {
            generation,
            availability: Availability::Available,
            uses: 0,
            clients: 0,
            started: now,
            leaving: false,
            hanging: false,
            busy_since: None,
            leave_since: None,
            termination: Termination::No,
            deadline: None,
            member,
        }
    }

    /// What it does in its ordered pool.
    pub(super) fn pool_state(&self) -> Option<State> {
        self.member.as_ref().map(|member| member.state)
    }

    fn is_idle(&self) -> bool {
        self.availability == Availability::Available
    }

    /// Whether it counts in [`Service::avail`].
    pub(super) fn is_available(&self) -> bool {
        match self.pool_state() {
            Some(state) => state == State::Idle,
            None => self.is_idle() && !self.leaving,
        }
    }

    /// Whether it counts in [`Service::departing`].
    pub(super) fn is_departing(&self) -> bool {
        self.member.is_none() && self.is_idle() && self.leaving
    }

    /// Whether it counts as busy; one that was told to leave may still have its client.
    pub(super) fn is_busy(&self) -> bool {
        match self.pool_state() {
            Some(state) => matches!(state, State::Ordered | State::Busy),
            None => !self.is_idle(),
        }
    }

    /// Whether its channel is open: it was not told to leave.
    pub(super) fn is_heard(&self) -> bool {
        match self.pool_state() {
            Some(state) => !state.is_leaving(),
            None => !self.leaving,
        }
    }

    /// It has reported a client.
    pub(super) fn take_client(&mut self, now: Time) {
        self.busy_since = Some(now);
        self.clients = self.clients.saturating_add(1);
    }

    pub(super) fn state(&self) -> ChildState {
        match self.pool_state() {
            Some(State::Starting) => ChildState::Starting,
            Some(State::Killed | State::Gone) => ChildState::Leaving,
            None if self.leaving => ChildState::Leaving,
            _ if self.is_available() => ChildState::Available,
            _ => ChildState::Busy,
        }
    }

    /// What its end says, of a service that is removed or not.
    pub(super) fn end(&self, status: ExitStatus, removed: bool) -> End {
        let told = self.termination != Termination::No && !self.hanging;
        // A pool's child that does not end in time is killed, whatever it did.
        let overstayed = told && self.member.is_none_or(|member| member.was_busy());
        // A child that was told to leave says nothing about the command of today.
        let staying = !self.leaving && !overstayed && !self.hanging && !removed;
        let mut indicts_command = self.uses == 0 && staying;
        let mut had_client = !self.is_idle() && !self.leaving;
        let mut expected = self.hanging
            || (removed || told)
                && matches!(status, ExitStatus::Signal(n) if SENT_BY_US.contains(&n));
        let mut unready = false;
        if let Some(member) = &self.member {
            had_client = member.had_client(overstayed);
            indicts_command &= member.indicts_command();
            expected |= member.was_told(status);
            expected &= !indicts_command;
            // Nothing else would show a command that does nothing.
            unready = indicts_command && member.was_starting();
        }
        let failed = (status != ExitStatus::Code(0) || unready) && !expected;
        let client = if failed || overstayed {
            Client::Lost
        } else {
            Client::Served
        };
        End {
            failed,
            indicts_command,
            client: had_client.then_some(client),
        }
    }
}

/// What a child's end says.
pub(super) struct End {
    /// It was neither good nor asked for.
    pub(super) failed: bool,
    /// A failure says something about the command: the child has not served any client.
    pub(super) indicts_command: bool,
    pub(super) client: Option<Client>,
}

/// What became of the client that a child had when it ended.
pub(super) enum Client {
    Served,
    Lost,
}

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildState {
    Starting,
    Available,
    Busy,
    /// It was told to leave; perhaps it still has a client.
    Leaving,
}

/// One child, for the status document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    pub pid: Pid,
    pub generation: u32,
    pub state: ChildState,
    /// Clients that it has reported.
    pub clients: u32,
    pub started: Time,
}

impl Service {
    /// The children, oldest first.
    pub(super) fn children_info(&self) -> Vec<ChildInfo> {
        let children = self.children.iter().map(|(&pid, child)| ChildInfo {
            pid,
            generation: child.generation,
            state: child.state(),
            clients: child.clients,
            started: child.started,
        });
        let mut children: Vec<_> = children.collect();
        children.sort_by_key(|child| child.started);
        children
    }
}
