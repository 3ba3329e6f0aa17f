//! The table: ours, Postfix's, their ratio, what it must be, and the least that it could be.

use std::fmt::Write as _;

use crate::measure::{Measure, Series};

/// The smallest, the middle one and the largest of some samples.
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

    /// The middle one, and the others in parentheses.
    pub fn text(self) -> String {
        let [min, median, max] = [self.min, self.median, self.max].map(number);
        format!("{median} ({min}-{max})")
    }
}

/// What a ratio has to be.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// It is there to be seen.
    None,
}

impl Goal {
    pub fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
            Self::None => String::new(),
        }
    }

    pub fn reached(self, ratio: f64) -> &'static str {
        let reached = match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
            Self::None => return "",
        };
        if reached { "yes" } else { "NO" }
    }
}

/// One line of the table, in words and numbers.
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub ours: Spread,
    /// Postfix's master, or what else ours is compared with.
    pub theirs: Spread,
    pub goal: Goal,
    pub floor: Option<f64>,
}

const HEAD: [&str; 10] = [
    "",
    "unit",
    "ours",
    "min-max",
    "Postfix's",
    "min-max",
    "ratio",
    "goal",
    "reached",
    "floor",
];

impl Row {
    fn ratio(&self) -> f64 {
        self.ours.median / self.theirs.median
    }

    pub fn missed(&self) -> bool {
        self.goal.reached(self.ratio()) == "NO"
    }

    fn cells(&self) -> [String; 10] {
        let range = |spread: Spread| format!("{}-{}", number(spread.min), number(spread.max));
        [
            self.what.clone(),
            self.unit.to_owned(),
            number(self.ours.median),
            range(self.ours),
            number(self.theirs.median),
            range(self.theirs),
            format!("{:.2}", self.ratio()),
            self.goal.text(),
            self.goal.reached(self.ratio()).to_owned(),
            self.floor.map_or_else(String::new, number),
        ]
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The table for a terminal.
pub fn text(rows: &[Row]) -> String {
    let lines = lines(rows);
    let mut widths = [0; HEAD.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            let _ = match at {
                0 | 1 => write!(text, "{cell:<width$}  "),
                _ => write!(text, "{cell:>width$}  "),
            };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The same in Markdown.
pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::new();
    for (at, line) in lines(rows).iter().enumerate() {
        let _ = writeln!(text, "| {} |", line.join(" | "));
        if at == 0 {
            let _ = writeln!(text, "|---|---|{}", "---:|".repeat(HEAD.len() - 2));
        }
    }
    text
}

fn lines(rows: &[Row]) -> Vec<[String; 10]> {
    let head = HEAD.map(str::to_owned);
    [head]
        .into_iter()
        .chain(rows.iter().map(Row::cells))
        .collect()
}

/// The least that a measure can be.
pub type Floor<'a> = dyn Fn(Measure) -> Option<f64> + 'a;

/// The table of everything that was measured of both masters.
pub fn compare(ours: &Series, theirs: &Series, floor: &Floor<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = ours
        .iter()
        .filter_map(|(measure, samples)| {
            let (what, unit, goal) = described(*measure)?;
            Some(Row {
                what,
                unit,
                ours: Spread::of(samples),
                theirs: Spread::of(theirs.get(measure)?),
                goal,
                floor: floor(*measure),
            })
        })
        .collect();
    rows.extend(among_ours(ours));
    rows
}

/// What grows with the number of services, beside itself with few.
fn among_ours(ours: &Series) -> Option<Row> {
    let spawn = |services| Some(Spread::of(ours.get(&Measure::SpawnCpu(services))?));
    Some(Row {
        what: "CPU per spawn, ours with 5000 services beside ours with 1".into(),
        unit: "us",
        ours: spawn(5_000)?,
        theirs: spawn(1)?,
        goal: Goal::AtMost(1.2),
        floor: None,
    })
}

/// A measure in words, its unit, and the goal.
fn described(measure: Measure) -> Option<(String, &'static str, Goal)> {
    use Goal::{AtLeast, AtMost};
    let (what, unit, goal) = match measure {
        Measure::WarmCpu(clients) => (
            format!("CPU per connection, warm children, {clients} at a time"),
            "us",
            AtMost(if clients == 1 { 0.5 } else { 0.3 }),
        ),
        Measure::WarmRate(clients) => (
            format!("connections, warm children, {clients} at a time"),
            "1/s",
            if clients == 1 {
                Goal::None
            } else {
                AtLeast(1.05)
            },
        ),
        Measure::WarmRateOfOne(clients) => (
            format!("connections, warm children, one processor, {clients} at a time"),
            "1/s",
            Goal::None,
        ),
        Measure::SpawnRate(clients) => (
            format!("connections, a child for each, {clients} at a time"),
            "1/s",
            AtLeast(if clients == 1 { 1.15 } else { 1.1 }),
        ),
        Measure::FirstByte(_) => ("first byte from a new child".into(), "ms", Goal::None),
        Measure::SpawnCpu(services) => (
            format!("CPU per spawn, {}", counted(services)),
            "us",
            match services {
                1 => AtMost(0.4),
                5_000 => AtMost(0.1),
                _ => Goal::None,
            },
        ),
        Measure::CrowdedSpawnCpu(children) => (
            format!("CPU per spawn, 2 services, {children} children of the other"),
            "us",
            Goal::None,
        ),
        Measure::StartCpu(services) => (
            format!("CPU to start, {}", counted(services)),
            "ms",
            if services == 5_000 {
                AtMost(0.5)
            } else {
                Goal::None
            },
        ),
        Measure::ReloadCpu(5_000) => ("CPU to reload, 5000 services".into(), "ms", AtMost(0.5)),
        Measure::ReloadCpu(_) => return None,
        Measure::Private(services) => (
            format!("private memory, {}", counted(services)),
            "KiB",
            match services {
                1 => AtMost(1.0),
                5_000 => AtMost(0.9),
                _ => Goal::None,
            },
        ),
        Measure::Pss(1) => ("Pss, 1 service".into(), "KiB", AtMost(0.7)),
        Measure::Pss(_) => return None,
    };
    Some((what, unit, goal))
}

fn counted(services: usize) -> String {
    match services {
        1 => "1 service".into(),
        n => format!("{n} services"),
    }
}
