//! The spread of several samples, and the goal for them.

/// The minimum, median and maximum of some samples.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    pub fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Self {
            min: sorted[0],
            median: sorted[sorted.len() / 2],
            max: sorted[sorted.len() - 1],
        }
    }

    /// The median, with the minimum and maximum in parentheses.
    pub fn text(self) -> String {
        let [min, median, max] = [self.min, self.median, self.max].map(number);
        format!("{median} ({min}-{max})")
    }
}

/// A goal for a ratio.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// At most the first number, and no sample of ours above the second number.
    Within(f64, f64),
    /// No goal; the value is only shown.
    None,
}

impl Goal {
    pub fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::Within(limit, most) => format!("<= {limit}, each <= {most}"),
            Self::None => String::new(),
        }
    }

    /// The result for a ratio.
    pub fn reached(self, ratio: f64) -> &'static str {
        self.reached_by(ratio, 0.0)
    }

    /// The result for a ratio and our largest sample.
    pub fn reached_by(self, ratio: f64, largest: f64) -> &'static str {
        let reached = match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::Within(limit, most) => ratio <= limit && largest <= most,
            Self::AtLeast(limit) => ratio >= limit,
            Self::None => return "",
        };
        if reached { "yes" } else { "NO" }
    }
}

/// A number with three significant digits.
pub fn number(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
