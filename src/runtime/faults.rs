//! Faults that a test asks for, in a debug build: the test points of SpamAssassin's
//! `SpamdForkScaling.pm`, as variables of the environment in which the master was started. Each is
//! a number N: once in N times, at random.

use super::Inherited;
use crate::protocol::pool::Order;

/// A child is taken for dead when it is ordered to accept.
const CHILDREN: &str = "MASTER_FAULT_CHILDREN";
/// An order cannot be written at once.
const WRITES: &str = "MASTER_FAULT_WRITES";
/// A child is taken for dead when it is pinged.
const PINGS: &str = "MASTER_FAULT_PINGS";

/// How rarely each goes wrong: once in this number of times; 0 is never, and so is what is no number.
#[derive(Debug, Default)]
pub(super) struct Faults {
    children: u64,
    writes: u64,
    pings: u64,
    state: u64,
}

impl Faults {
    /// What the environment asks for, in a debug build.
    pub(super) fn new(environment: &Inherited) -> Self {
        if !cfg!(debug_assertions) {
            return Self::default();
        }
        let number = |name: &str| {
            let value = environment.get(std::ffi::OsStr::new(name))?;
            value.to_str()?.parse().ok()
        };
        let number = |name| number(name).unwrap_or(0);
        Self {
            children: number(CHILDREN),
            writes: number(WRITES),
            pings: number(PINGS),
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Whether an order finds its child dead.
    pub(super) fn child(&mut self, order: Order) -> bool {
        let n = match order {
            Order::Accept => self.children,
            Order::Ping => self.pings,
        };
        self.happens(n)
    }

    /// Whether an order cannot be written at once.
    pub(super) fn write(&mut self) -> bool {
        self.happens(self.writes)
    }

    fn happens(&mut self, n: u64) -> bool {
        if n == 0 {
            return false;
        }
        // xorshift64 (Marsaglia, 2003).
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % n == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_happen_as_often_as_asked_for_and_never_unasked() {
        let environment = [(CHILDREN, "4"), (WRITES, "x")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let mut faults = Faults::new(&environment.into());
        let count = (0..4000).filter(|_| faults.child(Order::Accept)).count();
        let expected = if cfg!(debug_assertions) {
            800..1200
        } else {
            0..1
        };
        assert!(expected.contains(&count), "{count} of 4000");
        assert!((0..4000).all(|_| !faults.child(Order::Ping) && !faults.write()));
    }
}
