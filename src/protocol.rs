//! The interface between master and child: descriptor numbers, the variable `GENERATION`, and the
//! status report. This module depends on nothing else in the program, so that libraries for
//! children can use it.
//!
//! Source of the numbers and names: Postfix, `src/master/master_proto.h`.

pub mod pool;
pub mod template;

/// The read end of the flow-control pipe, shared by all children.
pub const FLOW_READ: i32 = 3;
/// The write end of the flow-control pipe, shared by all children.
pub const FLOW_WRITE: i32 = 4;
/// The child's end of the status channel. It becomes readable when the master has ended or tells
/// the child to leave. In an ordered pool, messages go in both directions, see [`pool`].
pub const STATUS: i32 = 5;
/// The first listener; the others have the descriptor numbers that follow.
pub const LISTEN: i32 = 6;
/// Maximum number of listeners of one child (our limit): the master reserves this many descriptors.
pub const LISTENERS_MAX: usize = 256;

/// The environment variable with the child's generation, in octal.
pub const GENERATION: &str = "GENERATION";

/// The byte that wakes a service up (Postfix, `mail_proto.h`: `TRIGGER_REQ_WAKEUP`).
pub const WAKEUP: u8 = b'W';

/// Whether a child can take another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// The child is busy.
    Taken,
    /// The child waits for a client.
    Available,
}

/// One message on the status channel: three native `int`s, twelve bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusReport {
    /// The process that sends the report.
    pub pid: i32,
    /// The generation from the variable [`GENERATION`].
    pub generation: u32,
    /// 0 for taken, 1 for available; other values are invalid, see [`StatusReport::availability`].
    pub available: i32,
}

impl StatusReport {
    /// The size of a report in bytes.
    pub const SIZE: usize = 12;

    /// A report in its wire form.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.generation.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.available.to_ne_bytes());
        bytes
    }

    /// The report in `record`; `None` if the record does not have [`Self::SIZE`] bytes.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let record: &[u8; Self::SIZE] = record.try_into().ok()?;
        let word = |at: usize| [record[at], record[at + 1], record[at + 2], record[at + 3]];
        Some(Self {
            pid: i32::from_ne_bytes(word(0)),
            generation: u32::from_ne_bytes(word(4)),
            available: i32::from_ne_bytes(word(8)),
        })
    }

    /// The availability that the child reports; `None` for an unknown value.
    pub fn availability(self) -> Option<Availability> {
        match self.available {
            0 => Some(Availability::Taken),
            1 => Some(Availability::Available),
            _ => None,
        }
    }
}

/// The reports in `written`, which the child `writer` has written, in order. An error is the number
/// of remaining bytes that are not reports. If the length is not a multiple of a report's size,
/// only reports at the beginning that have the writer's own process ID are accepted.
pub fn reports(writer: i32, written: &[u8]) -> impl Iterator<Item = Result<StatusReport, usize>> {
    let whole = written.len() % StatusReport::SIZE == 0;
    let mut rest = written;
    std::iter::from_fn(move || {
        let (report, after) = rest
            .split_at_checked(StatusReport::SIZE)
            .unwrap_or((rest, &[]));
        if rest.is_empty() {
            return None;
        }
        let report = StatusReport::decode(report).filter(|report| whole || report.pid == writer);
        let length = rest.len();
        rest = if report.is_some() { after } else { &[] };
        Some(report.ok_or(length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pid: i32) -> StatusReport {
        StatusReport {
            pid,
            generation: 1,
            available: 0,
        }
    }

    #[test]
    fn what_was_written_at_once_or_not_is_the_same() {
        let written = [of(7).encode(), of(8).encode(), of(7).encode()].concat();
        let all: Vec<_> = reports(7, &written).collect();
        assert_eq!(all, [Ok(of(7)), Ok(of(8)), Ok(of(7))]);
        assert_eq!(reports(7, &[]).count(), 0);
    }

    #[test]
    fn what_is_too_short_or_too_long_is_no_report() {
        for length in [1, 5, 11, 13, 40] {
            let written = vec![0xff; length];
            assert_eq!(reports(7, &written).collect::<Vec<_>>(), [Err(length)]);
        }
    }

    #[test]
    fn reports_before_what_is_none_count_if_they_are_the_childs_own() {
        let written = [&of(7).encode()[..], b"garbage"].concat();
        let all: Vec<_> = reports(7, &written).collect();
        assert_eq!(all, [Ok(of(7)), Err(7)]);
        let written = [&of(8).encode()[..], b"garbage"].concat();
        assert_eq!(reports(7, &written).collect::<Vec<_>>(), [Err(19)]);
    }

    #[test]
    fn a_report_survives_the_wire() {
        let report = StatusReport {
            pid: 4711,
            generation: 0o17,
            available: 1,
        };
        assert_eq!(StatusReport::decode(&report.encode()), Some(report));
        assert_eq!(report.availability(), Some(Availability::Available));
    }

    #[test]
    fn short_and_long_records_are_no_reports() {
        assert_eq!(StatusReport::decode(&[0; 11]), None);
        assert_eq!(StatusReport::decode(&[0; 13]), None);
        assert_eq!(StatusReport::decode(&[]), None);
    }

    #[test]
    fn an_unknown_availability_is_not_guessed_at() {
        let report = StatusReport {
            pid: 1,
            generation: 1,
            available: 2,
        };
        assert_eq!(report.availability(), None);
    }
}
