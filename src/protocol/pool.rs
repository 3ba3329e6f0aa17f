//! The messages between the master and a child of an ordered pool, over a stream on
//! [`STATUS`](super::STATUS). A message has six bytes: a letter, four bytes, and a newline.
//!
//! The messages are those of SpamAssassin's `Mail::SpamAssassin::SpamdForkScaling`, so that spamd's
//! children can be used unchanged.

/// The size of a message in bytes. The master also sets it as `SO_RCVLOWAT` of the child's end. By
/// this option a child distinguishes this channel from a status channel, which is a stream, too,
/// under Postfix's master.
pub const SIZE: usize = 6;

/// A complete message.
pub type Message = [u8; SIZE];

/// A message from the master to the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept one client. The child answers [`Report::Busy`], even if no client was waiting.
    Accept,
    /// The master is alive. The child does not answer.
    Ping,
}

impl Order {
    /// The order in its wire form.
    pub fn encode(self) -> Message {
        match self {
            Self::Accept => *b"A....\n",
            Self::Ping => *b"P....\n",
        }
    }

    /// The order in a message; `None` if it is not one.
    pub fn decode(message: Message) -> Option<Self> {
        match message {
            [b'A', .., b'\n'] => Some(Self::Accept),
            [b'P', .., b'\n'] => Some(Self::Ping),
            _ => None,
        }
    }
}

/// A message from the child to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The child waits for an order.
    Idle,
    /// The child has executed the order: it has a client, if one was waiting.
    Busy,
}

impl Report {
    /// The report in its wire form.
    pub fn encode(self, pid: i32) -> Message {
        let letter = match self {
            Self::Idle => b'I',
            Self::Busy => b'B',
        };
        let [a, b, c, d] = pid.to_ne_bytes();
        [letter, a, b, c, d, b'\n']
    }

    /// The report in a message; `None` if it is not one. The process ID is ignored, because the
    /// channel identifies the child, and its byte order varies: children use the machine's order
    /// or, before SpamAssassin 4, big-endian.
    pub fn decode(message: Message) -> Option<Self> {
        match message {
            [b'I', .., b'\n'] => Some(Self::Idle),
            [b'B', .., b'\n'] => Some(Self::Busy),
            _ => None,
        }
    }
}

/// Assembles messages from a stream, which may split them at any byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Assembler {
    bytes: Message,
    length: usize,
}

impl Assembler {
    /// The bytes of a message that has not come in whole.
    pub fn begun(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Takes the missing bytes of the current message from the front of `input`. Returns the
    /// message when it is complete.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Message> {
        let count = input.len().min(SIZE - self.length);
        let (taken, rest) = input.split_at(count);
        self.bytes[self.length..][..count].copy_from_slice(taken);
        self.length += count;
        *input = rest;
        (self.length == SIZE).then(|| {
            self.length = 0;
            self.bytes
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_reports_survive_the_wire() {
        for order in [Order::Accept, Order::Ping] {
            assert_eq!(Order::decode(order.encode()), Some(order));
        }
        for report in [Report::Idle, Report::Busy] {
            assert_eq!(Report::decode(report.encode(4711)), Some(report));
        }
    }

    #[test]
    fn both_encodings_of_a_pid_are_right_also_with_a_newline_in_them() {
        for pid in [1, 10, 0x0a0a_0a0a, i32::MAX] {
            let [a, b, c, d] = pid.to_be_bytes();
            assert_eq!(
                Report::decode([b'I', a, b, c, d, b'\n']),
                Some(Report::Idle)
            );
            let native = Report::Busy.encode(pid);
            assert_eq!(Report::decode(native), Some(Report::Busy));
        }
    }

    #[test]
    fn an_unknown_letter_or_a_missing_newline_is_not_guessed_at() {
        for message in [
            b"i\0\0\0\0\n",
            b"X\0\0\0\0\n",
            b"I\0\0\0\0I",
            b"\nI\0\0\0\0",
        ] {
            assert_eq!(Report::decode(*message), None);
            assert_eq!(Order::decode(*message), None);
        }
    }

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let stream = b"A....\nP....\nA....\n";
        for cut in 0..stream.len() {
            for other in cut..stream.len() {
                let parts = [&stream[..cut], &stream[cut..other], &stream[other..]];
                let mut assembler = Assembler::default();
                let mut found = Vec::new();
                for mut part in parts {
                    while let Some(message) = assembler.take(&mut part) {
                        found.push(message);
                    }
                    assert!(part.is_empty());
                }
                assert_eq!(found.concat(), stream);
            }
        }
    }
}
