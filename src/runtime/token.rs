//! What a key of the poller stands for. Keys are made and read here only.

use crate::policy::{Pid, ServiceId};

/// Something that can be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Signals,
    /// Clients of the service wait, or its TCP listener was shut down.
    Listener(ServiceId),
    /// A local listener was shut down.
    Hangups,
    /// Children of the service have sent reports.
    Reports(ServiceId),
    /// The child has ended.
    Exit(Pid),
    /// The child of an ordered pool has sent messages, or can be sent some.
    PoolChannel(Pid),
    /// The child has printed something.
    Output(Pid),
    /// The template has said something, or something has connected to its socket.
    Template(Pid),
    /// A wake-up goes on.
    Wakeup(usize),
    /// Programs wait that read the status, or one of them can be sent some.
    Status(usize),
    /// Programs of the master's own user wait that read the status, or one can be sent some.
    OwnStatus(usize),
    /// Operators' programs wait, or one of them has sent a request.
    Control(usize),
    /// Host names that a reload waits for were looked up.
    Names,
    /// A program has said whether it can go on from the master's state.
    Upgrade,
}

impl Token {
    /// Bits of a key that tell the kind of token.
    const KIND_BITS: u32 = 4;
    /// The largest number in a token. No key is `usize::MAX`, which is the poller's own.
    pub(super) const INDEX_MAX: usize = (usize::MAX >> Self::KIND_BITS) - 1;

    pub(super) fn key(self) -> usize {
        let (kind, index) = match self {
            Self::Signals => (0, 0),
            Self::Listener(id) => (1, id.index()),
            Self::Reports(id) => (2, id.index()),
            Self::Exit(pid) => (3, pid as usize),
            Self::PoolChannel(pid) => (4, pid as usize),
            Self::Output(pid) => (5, pid as usize),
            Self::Wakeup(index) => (6, index),
            Self::Status(index) => (7, index),
            Self::Control(index) => (8, index),
            Self::Names => (9, 0),
            Self::Hangups => (10, 0),
            Self::OwnStatus(index) => (11, index),
            Self::Template(pid) => (12, pid as usize),
            Self::Upgrade => (13, 0),
        };
        (index << Self::KIND_BITS) | kind
    }

    /// The token of a key, if it is one.
    pub(super) fn from_key(key: usize) -> Option<Self> {
        let index = key >> Self::KIND_BITS;
        let service = || ServiceId::from_index(index);
        Some(match key & ((1 << Self::KIND_BITS) - 1) {
            0 => Self::Signals,
            1 => Self::Listener(service()),
            2 => Self::Reports(service()),
            3 => Self::Exit(index as Pid),
            4 => Self::PoolChannel(index as Pid),
            5 => Self::Output(index as Pid),
            6 => Self::Wakeup(index),
            7 => Self::Status(index),
            8 => Self::Control(index),
            9 => Self::Names,
            10 => Self::Hangups,
            11 => Self::OwnStatus(index),
            12 => Self::Template(index as Pid),
            13 => Self::Upgrade,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_what_it_was_made_of() {
        let id = ServiceId::from_index(4711);
        let pid = 4_194_304;
        for token in [
            Token::Signals,
            Token::Listener(id),
            Token::Reports(id),
            Token::Exit(pid),
            Token::PoolChannel(pid),
            Token::Output(pid),
            Token::Template(pid),
            Token::Wakeup(Token::INDEX_MAX),
            Token::Status(0),
            Token::Status(Token::INDEX_MAX),
            Token::OwnStatus(1),
            Token::Control(0),
            Token::Control(Token::INDEX_MAX),
            Token::Names,
            Token::Hangups,
        ] {
            assert_eq!(Token::from_key(token.key()), Some(token));
            assert_ne!(token.key(), usize::MAX);
        }
        assert_eq!(Token::from_key(15), None);
    }
}
