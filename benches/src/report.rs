//! The table: our value, Postfix's, their ratio, the goal, and the lower bound.

use std::fmt::Write as _;

use crate::measure::{Measure, Series};
use crate::spread::{Goal, Spread, number};

/// One row of the table.
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub ours: Spread,
    /// The value of Postfix's master, or of another program that ours is compared with.
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

    fn reached(&self) -> &'static str {
        self.goal.reached_by(self.ratio(), self.ours.max)
    }

    pub fn missed(&self) -> bool {
        self.reached() == "NO"
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
            self.reached().to_owned(),
            self.floor.map_or_else(String::new, number),
        ]
    }
}

/// The table as plain text.
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

/// The table in Markdown.
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

/// The lower bound of a measure.
pub type Floor<'a> = dyn Fn(Measure) -> Option<f64> + 'a;

/// The table of all measures of both masters.
pub fn compare(ours: &Series, theirs: &Series, floor: &Floor<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = ours
        .iter()
        .filter_map(|(measure, samples)| {
            let (what, unit) = measure.described()?;
            Some(Row {
                what,
                unit,
                ours: Spread::of(samples),
                theirs: Spread::of(theirs.get(measure)?),
                goal: measure.goal(),
                floor: floor(*measure),
            })
        })
        .collect();
    rows.extend(among_ours(ours));
    rows
}

/// Compares the cost with many services and with few.
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
