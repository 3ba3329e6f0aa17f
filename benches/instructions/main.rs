//! Counts the instructions of the policy and the parsers with callgrind, whose result does not
//! depend on the machine's load. `cargo run --release -p benches --bin instructions` compares the
//! counts with the recorded ones and fails when one has grown by more than a fifth.
//!
//! Each piece of work runs in its own process, once with few repetitions and once with many; the
//! difference is the cost of the repetitions. Names with a number have the same work with different
//! sizes. Their cost per item must be nearly equal, otherwise it is not linear.

mod work;

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use work::{WORK, Work};

/// The maximum, in percent of the recorded count.
const WORST: u64 = 120;
/// Below this percentage the new count should be recorded.
const BEST: u64 = 80;
/// The maximum cost per item of a large size, in percent of the small size's.
const GROWTH: u64 = 150;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [name, times] = arguments.as_slice() {
        let work = WORK.iter().find(|work| work.name == name);
        work.context("no such work")?.run(times.parse()?);
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("left out: the count of instructions, because valgrind is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let mut failures = 0;
    let mut former: Option<(&str, u64)> = None;
    println!("{:<42} {:>12} {:>9}", "instructions for", "are", "were");
    for work in &WORK {
        let count = measure(work)?;
        let verdict = verdict(count, work.expected, former, work.name);
        println!(
            "{:<42} {count:>12} {:>9} {verdict}",
            work.name, work.expected
        );
        failures += usize::from(!verdict.is_empty());
        former = Some((work.name, count));
    }
    if failures > 0 {
        println!("find out why, then set the numbers in benches/instructions/work.rs");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The comment on a count; `former` is the line before, with its count.
fn verdict(count: u64, expected: u64, former: Option<(&str, u64)>, name: &str) -> &'static str {
    // The name without its number.
    let kind = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    let few = former.filter(|(former, _)| kind(former) == kind(name));
    match count * 100 / expected {
        _ if few.is_some_and(|(_, few)| count * 100 > few * GROWTH) => "GROWS with their number",
        percent if percent > WORST => "WORSE",
        percent if percent < BEST => "BETTER: write it down",
        _ => "",
    }
}

/// The number of instructions for one item.
fn measure(work: &Work) -> Result<u64> {
    let few = count(work.name, work.times)?;
    let many = count(work.name, work.times * 2)?;
    Ok(many.saturating_sub(few) / (work.times * work.items) as u64)
}

fn count(name: &str, times: usize) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .arg(name)
        .arg(times.to_string())
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name}: {said}");
    let collected = said.split("Collected :").nth(1);
    let number = collected.and_then(|rest| rest.split_whitespace().next());
    Ok(number.with_context(|| said.to_string())?.parse()?)
}
