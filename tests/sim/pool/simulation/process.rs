//! The true state of a child of the pool.

use std::collections::VecDeque;

use master::policy::{ExitStatus, Pid, Signal, Time};
use master::protocol::pool::{Order, Report};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its exec hangs.
    Hanging,
    Starting,
    Waiting,
    Ordered,
    Busy,
}

/// A message of a child, including the end of its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Report(Report),
    Letter,
    Descriptors,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) phase: Phase,
    pub(super) orders: VecDeque<Order>,
    /// Orders that the master keeps until they can be written.
    pub(super) unwritten: VecDeque<Order>,
    pub(super) words: VecDeque<Word>,
    /// Whether the child's end of the channel is open, and the master's.
    pub(super) open: bool,
    pub(super) held: bool,
    pub(super) stopped: bool,
    pub(super) defiant: bool,
    /// Whether it takes no more steps.
    pub(super) rogue: bool,
    /// Whether the master has read the end of its channel.
    pub(super) end_read: bool,
    /// Whether the master was told that its exec hangs.
    pub(super) hang_reported: bool,
    /// Whether its end before it is idle shows that the program is broken: the master has not read
    /// that it is idle, and has not replaced its children since.
    pub(super) on_trial: bool,
    /// Whether the master has decided to end it.
    pub(super) ending: bool,
    pub(super) signal: Option<Signal>,
    pub(super) end: Option<ExitStatus>,
    /// The master's knowledge: whether it is idle, and since when an order is unanswered.
    pub(super) idle: bool,
    pub(super) ordered_at: Option<Time>,
    /// The master's knowledge: since when it has a client.
    pub(super) busy_since: Option<Time>,
}

impl Process {
    pub(super) fn new(pid: Pid) -> Self {
        Self {
            pid,
            phase: Phase::Starting,
            orders: VecDeque::new(),
            unwritten: VecDeque::new(),
            words: VecDeque::new(),
            open: true,
            held: true,
            stopped: false,
            defiant: false,
            rogue: false,
            end_read: false,
            hang_reported: false,
            on_trial: true,
            ending: false,
            signal: None,
            end: None,
            idle: false,
            ordered_at: None,
            busy_since: None,
        }
    }

    pub(super) fn say(&mut self, word: Word) {
        if self.open && self.held {
            self.words.push_back(word);
        }
    }

    /// The master does not count it any more, whatever it sends.
    pub(super) fn no_longer_counts(&mut self) {
        self.ending = true;
        self.idle = false;
        self.busy_since = None;
        self.ordered_at = None;
    }

    pub(super) fn end(&mut self, status: ExitStatus) {
        self.end = Some(status);
        self.open = false;
    }
}

/// Lets a correct child take its next step; false if there is none.
pub(super) fn advance(process: &mut Process, waiting: &mut u32) -> bool {
    match process.phase {
        Phase::Hanging => return false,
        _ if !process.held => process.end(ExitStatus::Code(0)),
        Phase::Starting => {
            process.phase = Phase::Waiting;
            process.say(Word::Report(Report::Idle));
        }
        Phase::Waiting => match process.orders.pop_front() {
            None => return false,
            Some(Order::Ping) => {}
            Some(Order::Accept) => process.phase = Phase::Ordered,
        },
        Phase::Ordered => {
            // Another child may have accepted the client.
            *waiting = waiting.saturating_sub(1);
            process.phase = Phase::Busy;
            process.say(Word::Report(Report::Busy));
        }
        Phase::Busy => {
            process.phase = Phase::Waiting;
            process.say(Word::Report(Report::Idle));
        }
    }
    true
}
