//! How much is done for one sample.

/// How much is done for one sample.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub connections: usize,
    pub spawns: usize,
    /// Connections that children accept when told to.
    pub ordered: usize,
    /// How many children live at a time, and end at once.
    pub children: usize,
    /// Numbers of services that masters are started with.
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

/// A pool is put under load so many times: clients and children share the processors in one of two
/// ways, and are nearly twice as fast in one of them, whatever the parent is.
pub const RUNS: usize = 6;
