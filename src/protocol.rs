//! What master and child agree on: descriptor numbers, the `GENERATION` variable, and the status
//! report. This room knows nothing else of the program, so that children's libraries can share it.
//!
//! Source of the numbers and names: Postfix, `src/master/master_proto.h`.

pub mod pool;

/// The read end of the flow-control pipe, shared by all children.
pub const FLOW_READ: i32 = 3;
/// The write end of the flow-control pipe, shared by all children.
pub const FLOW_WRITE: i32 = 4;
/// The child's end of the status channel; readable when the master is gone or wants the child to
/// leave. In an ordered pool, messages go both ways, see [`pool`].
pub const STATUS: i32 = 5;
/// The first listener; further ones follow without a gap.
pub const LISTEN: i32 = 6;
/// The most listeners of one child. Ours: so many descriptor numbers are kept free for them.
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
    /// The process that the report is about.
    pub pid: i32,
    /// The generation it was given in [`GENERATION`].
    pub generation: u32,
    /// 0 taken, 1 available; anything else is not understood, see [`StatusReport::availability`].
    pub available: i32,
}

impl StatusReport {
    /// Bytes in a report.
    pub const SIZE: usize = 12;

    /// A report in its wire form.
    pub fn encode(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..4].copy_from_slice(&self.pid.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.generation.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.available.to_ne_bytes());
        bytes
    }

    /// The report in `record`, or nothing when the record has any other length.
    pub fn decode(record: &[u8]) -> Option<Self> {
        let record: &[u8; Self::SIZE] = record.try_into().ok()?;
        let word = |at: usize| [record[at], record[at + 1], record[at + 2], record[at + 3]];
        Some(Self {
            pid: i32::from_ne_bytes(word(0)),
            generation: u32::from_ne_bytes(word(4)),
            available: i32::from_ne_bytes(word(8)),
        })
    }

    /// What the child says of itself, or nothing when it is neither of the two known values.
    pub fn availability(self) -> Option<Availability> {
        match self.available {
            0 => Some(Availability::Taken),
            1 => Some(Availability::Available),
            _ => None,
        }
    }
}

/// What the child `writer` has written: its reports in order, or so many bytes that are none. Where
/// not all of it can be reports, only those at the beginning are that it makes of itself.
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
