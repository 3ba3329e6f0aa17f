//! What the master and the template of a preloaded service say to each other, see
//! `man/master-protocol.7`: lines of text on [`STATUS`](super::STATUS), and the messages by which a
//! child that was forked becomes known.

use serde_derive::{Deserialize, Serialize};

/// The environment variable with the path at which children are announced. A program that finds it
/// is to be a template.
pub const SOCKET: &str = "MASTER_TEMPLATE";

/// The longest line of a template.
pub const LINE_MAX: usize = 256;

/// The size of a message between the master and a child that is not known yet.
pub const SIZE: usize = 6;
/// The first of the child.
pub const HELLO: [u8; SIZE] = *b"hello\n";
/// The master has seen which process that is.
pub const KNOWN: [u8; SIZE] = *b"known\n";
/// The child has read that.
pub const READY: [u8; SIZE] = *b"ready\n";

/// The order to fork a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub generation: u32,
    /// The child accepts when it is told to.
    pub ordered: bool,
    pub stress: bool,
}

impl Order {
    /// The order as a line.
    pub fn encode(self) -> String {
        let accept = if self.ordered { "ordered" } else { "shared" };
        let stress = if self.stress { " stress=yes" } else { "" };
        format!("fork {:o} accept={accept}{stress}\n", self.generation)
    }

    /// The order in a line without its end; `None` if it is not one.
    pub fn decode(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("fork ")?.split(' ');
        let generation = u32::from_str_radix(words.next()?, 8).ok()?;
        let mut order = Self {
            generation,
            ordered: false,
            stress: false,
        };
        // Later versions may have more to say.
        for word in words {
            match word {
                "accept=ordered" => order.ordered = true,
                "stress=yes" => order.stress = true,
                _ => {}
            }
        }
        Some(order)
    }
}

/// What a template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has loaded.
    Ready,
    /// It has forked the child that it was ordered to fork.
    Forked,
    /// It could not.
    Failed(String),
}

impl Answer {
    /// The answer in a line without its end; `None` if it is not one.
    pub fn decode(line: &[u8]) -> Option<Self> {
        match line {
            b"ready" => Some(Self::Ready),
            b"forked" => Some(Self::Forked),
            _ => {
                let why = line.strip_prefix(b"failed")?;
                let why = why.trim_ascii().escape_ascii().to_string();
                Some(Self::Failed(why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_line_with_the_generation_in_octal() {
        for (generation, ordered, stress, line) in [
            (8, false, false, "fork 10 accept=shared\n"),
            (
                u32::MAX,
                true,
                true,
                "fork 37777777777 accept=ordered stress=yes\n",
            ),
        ] {
            let order = Order {
                generation,
                ordered,
                stress,
            };
            assert_eq!(order.encode(), line);
            assert_eq!(Order::decode(line.trim_end()), Some(order));
        }
        for line in ["fork", "fork 8", "fork  1", "spoon 1", ""] {
            assert_eq!(Order::decode(line), None, "{line}");
        }
    }

    #[test]
    fn an_answer_is_one_of_three_words_and_a_failure_has_a_reason() {
        assert_eq!(Answer::decode(b"ready"), Some(Answer::Ready));
        assert_eq!(Answer::decode(b"forked"), Some(Answer::Forked));
        let why = Answer::Failed("no \\x1b room".into());
        assert_eq!(Answer::decode(b"failed no \x1b room"), Some(why));
        for line in [&b"Ready"[..], b"forked 1", b"", b"\xff"] {
            assert_eq!(Answer::decode(line), None);
        }
    }
}
