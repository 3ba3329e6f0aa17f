//! What the master and a child of an ordered pool say to each other, over a stream of their own on
//! [`STATUS`](super::STATUS): messages of six bytes, a letter, four bytes, and a newline.
//!
//! The words are those of SpamAssassin's `Mail::SpamAssassin::SpamdForkScaling`, so that children
//! made for spamd need no other.

/// Bytes in a message. It is also the least that a read of the child's end waits for, as the master
/// sets it (`SO_RCVLOWAT`): by this a child can tell its own channel from a status channel, which
/// with Postfix's master is a stream too.
pub const SIZE: usize = 6;

/// A whole message.
pub type Message = [u8; SIZE];

/// From the master to the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept one client. The child answers that it is busy, also when it found nobody there.
    Accept,
    /// Nothing: the master lives. There is no answer.
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

    /// The order in a message, if it is one.
    pub fn decode(message: Message) -> Option<Self> {
        match message {
            [b'A', .., b'\n'] => Some(Self::Accept),
            [b'P', .., b'\n'] => Some(Self::Ping),
            _ => None,
        }
    }
}

/// From the child to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The child waits for an order.
    Idle,
    /// The child has done what it was ordered, and has a client, if one was there.
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

    /// The report in a message, if it is one. The pid in it is not looked at: the channel says who
    /// speaks, and children write it in the machine's order or, before SpamAssassin 4, with the
    /// high byte first.
    pub fn decode(message: Message) -> Option<Self> {
        match message {
            [b'I', .., b'\n'] => Some(Self::Idle),
            [b'B', .., b'\n'] => Some(Self::Busy),
            _ => None,
        }
    }
}

/// Puts messages together from a stream, which may cut them anywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Assembler {
    bytes: Message,
    length: usize,
}

impl Assembler {
    /// Takes from the front of `input` what the message that is under way lacks, and returns it
    /// once it is whole.
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
