//! The amount of work for one sample.

/// The amount of work for one sample.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub connections: usize,
    pub spawns: usize,
    /// The number of connections for ordered pools.
    pub ordered: usize,
    /// The number of children that live at the same time and end at once.
    pub children: usize,
    /// The numbers of services that masters are started with.
    pub services: &'static [usize],
}

impl Effort {
    pub const FULL: Self = Self {
        connections: 20_000,
        spawns: 1_000,
        ordered: 5_000,
        children: 5_000,
        services: &[1, 100, 1_000, 3_000, 5_000],
    };
    pub const QUICK: Self = Self {
        connections: 2_000,
        spawns: 200,
        ordered: 500,
        children: 1_000,
        services: &[1, 100, 1_000, 3_000, 5_000],
    };
}

/// The number of load runs for each pool. Client and children are placed on the processors in one
/// of two ways, one of which is nearly twice as fast with any parent, so one run is not enough.
pub const RUNS: usize = 6;
