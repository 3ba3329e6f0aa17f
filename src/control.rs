//! The messages on the control socket, between masterctl(1) and the master: one request of a fixed
//! size, one answer, and the connection is closed. The messages are binary, so that the master
//! needs no text parser.
//!
//! A request names a service by its place in the table, which the status document contains, and by
//! its identity, a hash of type and address. If another service has taken the place, the identity
//! differs and the request is refused.

use crate::config::Kind;

/// The socket, below the queue directory. No service can have this name.
pub const SOCKET: &str = "pid/master.control";

/// The version of the messages.
const VERSION: u32 = 1;

/// A request to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Let new clients wait.
    Pause(Target),
    /// Serve clients again.
    Resume(Target),
    /// Replace the service's children, as a reload does.
    Replace(Target),
    /// Wake the service up now.
    Wake(Target),
    /// Log each decision, or stop doing so.
    Verbose(bool),
}

/// The most bytes of a program's path in a request for an upgrade.
pub const PROGRAM_MAX: usize = 4096;
/// The first words of such a request, which the path follows, or nothing for the program by which the
/// master was started.
const UPGRADE: [u32; 2] = [VERSION, 6];

/// A request for an upgrade, in its wire form.
pub fn encode_upgrade(program: Option<&[u8]>) -> Vec<u8> {
    let words = UPGRADE.iter().flat_map(|word| word.to_ne_bytes());
    words
        .chain(program.unwrap_or_default().iter().copied())
        .collect()
}

/// The program of a request for an upgrade, if `message` is one: an absolute path, or nothing.
pub fn decode_upgrade(message: &[u8]) -> Option<Option<&[u8]>> {
    let head = encode_upgrade(None);
    let path = message.strip_prefix(&*head)?;
    match path {
        [] => Some(None),
        [b'/', ..] if path.len() <= PROGRAM_MAX && !path.contains(&0) => Some(Some(path)),
        _ => None,
    }
}

/// The service that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its place in the table.
    pub place: u32,
    /// The result of [`identity`] for the service.
    pub identity: u64,
}

/// A hash (FNV-1a, 64 bits) that differs between services of one table, except by a very unlikely
/// coincidence. It protects from mistakes, not from attacks: a user with write access to the
/// control socket may do anything.
pub fn identity(kind: &str, endpoint: &str) -> u64 {
    let bytes = kind.bytes().chain([0]).chain(endpoint.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Target {
    /// The service at this place, with this type and canonical name.
    pub fn new(place: u32, kind: Kind, canonical: &str) -> Self {
        Self {
            place,
            identity: identity(kind.as_str(), canonical),
        }
    }
}

impl Request {
    /// Bytes in a request.
    pub const SIZE: usize = 24;

    /// The request in its wire form.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let (verb, place, identity) = match self {
            Self::Pause(target) => (1, target.place, target.identity),
            Self::Resume(target) => (2, target.place, target.identity),
            Self::Replace(target) => (3, target.place, target.identity),
            Self::Wake(target) => (4, target.place, target.identity),
            Self::Verbose(verbose) => (5, u32::from(verbose), 0),
        };
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[4..8].copy_from_slice(&u32::to_ne_bytes(verb));
        bytes[8..12].copy_from_slice(&place.to_ne_bytes());
        bytes[16..24].copy_from_slice(&identity.to_ne_bytes());
        bytes
    }

    /// The request in `message`; `None` if it is not a valid one.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let message: &[u8; Self::SIZE] = message.try_into().ok()?;
        let word = |at: usize| {
            u32::from_ne_bytes([
                message[at],
                message[at + 1],
                message[at + 2],
                message[at + 3],
            ])
        };
        let (_, identity) = message.split_last_chunk::<8>()?;
        let (place, identity) = (word(8), u64::from_ne_bytes(*identity));
        let target = Target { place, identity };
        if word(0) != VERSION {
            return None;
        }
        let request = match word(4) {
            1 => Self::Pause(target),
            2 => Self::Resume(target),
            3 => Self::Replace(target),
            4 => Self::Wake(target),
            5 if place <= 1 => Self::Verbose(place == 1),
            _ => return None,
        };
        // Unused bytes must be zero: otherwise the request is from a later version.
        (request.encode() == *message).then_some(request)
    }

    /// The service that the request is for.
    pub fn target(self) -> Option<Target> {
        match self {
            Self::Pause(target)
            | Self::Resume(target)
            | Self::Replace(target)
            | Self::Wake(target) => Some(target),
            Self::Verbose(_) => None,
        }
    }
}

/// The master's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The message is not a request of this version.
    Malformed,
    /// The client is neither root nor the user that runs the master.
    Forbidden,
    /// The service is not at that place.
    Unknown,
    /// The service is throttled and was not woken up.
    Throttled,
    /// The service is paused and was not woken up.
    Paused,
    /// A datagram service cannot be woken up.
    Datagrams,
    /// No program has gone on in the master's place. The reason follows, as text.
    NotUpgraded,
}

impl Answer {
    /// Bytes in an answer.
    pub const SIZE: usize = 8;

    const ALL: [Self; 8] = [
        Self::Done,
        Self::Malformed,
        Self::Forbidden,
        Self::Unknown,
        Self::Throttled,
        Self::Paused,
        Self::Datagrams,
        Self::NotUpgraded,
    ];

    /// The answer in its wire form.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[4..8].copy_from_slice(&(self as u32).to_ne_bytes());
        bytes
    }

    /// The answer in `message`; `None` if it is not a valid one.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|answer| answer.encode() == *message)
    }

    /// Why the request was refused; `None` if it was executed.
    pub fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Done => None,
            Self::Malformed => Some("it is not a request of this version"),
            Self::Forbidden => Some("only root and the user that runs the master may do this"),
            Self::Unknown => Some("there is no such service any more"),
            Self::Throttled => Some("the service is throttled"),
            Self::Paused => Some("the service is paused"),
            Self::Datagrams => Some("a datagram service cannot be woken up"),
            Self::NotUpgraded => Some("no upgrade"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target {
        place: 7,
        identity: 0x0123_4567_89ab_cdef,
    };

    #[test]
    fn requests_and_answers_survive_the_wire() {
        for request in [
            Request::Pause(TARGET),
            Request::Resume(TARGET),
            Request::Replace(TARGET),
            Request::Wake(TARGET),
            Request::Verbose(true),
            Request::Verbose(false),
        ] {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
        for answer in Answer::ALL {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn what_is_not_quite_a_request_is_none() {
        let good = Request::Pause(TARGET).encode();
        assert_eq!(Request::decode(&good[1..]), None);
        assert_eq!(Request::decode(&[&good[..], &[0]].concat()), None);
        for (at, wrong) in [(0, 9), (4, 0), (4, 6), (12, 1)] {
            let mut message = good;
            message[at] = wrong;
            assert_eq!(Request::decode(&message), None, "byte {at}");
        }
        let mut message = Request::Verbose(true).encode();
        message[8] = 2;
        assert_eq!(Request::decode(&message), None);
        assert_eq!(Answer::decode(&[0; Answer::SIZE]), None);
    }

    #[test]
    fn services_are_told_apart_by_type_and_address() {
        let names = [
            ("unix", "private/a"),
            ("pass", "private/a"),
            ("unix", "private/b"),
        ];
        let numbers = names.map(|(kind, endpoint)| identity(kind, endpoint));
        assert!(numbers[0] != numbers[1] && numbers[0] != numbers[2]);
        let target = Target::new(1, Kind::Unix, "private/a");
        assert_eq!(target.identity, numbers[0]);
    }
}
