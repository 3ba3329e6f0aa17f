//! Compares the cost of our master with that of Postfix's: the same children and the same load, on
//! the same machine, in alternating rounds of one run. `cargo run --release -p benches` runs
//! everything and writes `benches/RESULTS.md` and `benches/cost.svg`. `--quick` makes one round
//! with little load, to check that everything works, and writes nothing.
//!
//! Most measures are processor time, which the kernel counts in nanoseconds: unlike elapsed time,
//! it does not depend on other programs that use the machine.

mod cgroup;
mod confined;
mod effort;
mod floor;
mod growth;
mod load;
mod machine;
mod measure;
mod others;
mod plot;
mod pools;
mod process;
mod processor;
mod profile;
mod readers;
mod report;
mod sample;
mod spamd;
mod spawn;
mod spawners;
mod spread;
mod system;
mod upgrades;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use effort::Effort;
use floor::Floors;
use measure::Series;

/// Postfix's own master.
const ORIGINAL: &str = "/usr/lib/postfix/sbin/master";

const USAGE: &str = "usage: benches [--quick] [--rounds NUMBER] [--only compare|growth|profile|others|spawners|pools|spamd|readers|confined|upgrade]";

const PARTS: [&str; 10] = [
    "compare", "growth", "profile", "others", "spawners", "pools", "spamd", "readers", "confined",
    "upgrade",
];

struct Options {
    effort: Effort,
    rounds: usize,
    only: Option<String>,
    /// Whether to write the results to files.
    keep: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            effort: Effort::FULL,
            rounds: 5,
            only: None,
            keep: true,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => {
                    options.effort = Effort::QUICK;
                    options.rounds = 1;
                    options.keep = false;
                }
                "--rounds" => {
                    let number = arguments.next().context(USAGE)?;
                    options.rounds = number.parse().context(USAGE)?;
                    ensure!(options.rounds > 0, USAGE);
                }
                "--only" => {
                    options.only = Some(arguments.next().context(USAGE)?);
                    options.keep = false;
                }
                _ => bail!(USAGE),
            }
        }
        let known = |part: &String| PARTS.contains(&part.as_str());
        ensure!(options.only.iter().all(known), USAGE);
        Ok(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

fn main() -> Result<ExitCode> {
    let options = Options::parse(std::env::args().skip(1))?;
    ensure!(
        nix::unistd::geteuid().is_root() && Path::new(ORIGINAL).exists(),
        "this needs root, and Debian's Postfix at {ORIGINAL}"
    );
    // Some measurements have thousands of clients.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let built = build()?;
    let masters = [built.as_path(), Path::new(ORIGINAL)];
    let mut results = Results::default();
    if options.wants("compare") {
        compare(&options, masters, &mut results)?;
    }
    if options.wants("growth") {
        let timed = built.with_file_name("timed");
        results.growth = growth(&options, [&timed, Path::new(ORIGINAL)])?;
        print!("\n{}", results.growth);
    }
    if options.wants("profile") {
        eprintln!("where the time goes");
        results.profile = profile::measure(&built, options.effort)?;
        print!("\n{}", results.profile);
    }
    if options.wants("others") {
        eprintln!("other servers");
        let directory = built.parent().context("a directory")?;
        results.others = others::measure(directory, options.effort, options.rounds)?;
        print!("\n{}", results.others);
    }
    if options.wants("spawners") {
        eprintln!("any program for each connection");
        results.spawners = spawners::measure(masters, options.effort, options.rounds)?;
        print!("\n{}", results.spawners);
    }
    if options.wants("pools") {
        let directory = built.parent().context("a directory")?;
        let (table, missed) = pools::measure(directory, options.effort, options.rounds)?;
        print!("\n{table}");
        results.pools = table;
        results.missed |= missed;
    }
    if options.wants("spamd") {
        let directory = built.parent().context("a directory")?;
        let (table, missed) = spamd::measure(directory, options.effort, options.rounds)?;
        print!("\n{table}");
        results.spamd = table;
        results.missed |= missed;
    }
    if options.wants("readers") {
        let (table, missed) = readers::measure(&built, options.effort, options.rounds)?;
        print!("\n{table}");
        results.readers = table;
        results.missed |= missed;
    }
    if options.wants("confined") {
        eprintln!("a child with limits and a sandbox");
        let (table, missed) = confined::measure(&built, options.effort, options.rounds)?;
        print!("\n{table}");
        results.confined = table;
        results.missed |= missed;
    }
    if options.wants("upgrade") {
        let (table, missed) = upgrades::measure(&built, options.effort)?;
        print!("\n{table}");
        results.upgrades = table;
        results.missed |= missed;
    }
    let machine = machine::described();
    println!("\n{machine}");
    if options.keep {
        keep(&results, &machine, options.rounds)?;
    }
    Ok(if results.missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The results to be written.
#[derive(Default)]
struct Results {
    table: String,
    growth: String,
    profile: String,
    others: String,
    spawners: String,
    pools: String,
    spamd: String,
    readers: String,
    confined: String,
    upgrades: String,
    plot: String,
    /// Whether a goal was missed.
    missed: bool,
}

/// Measures both masters, alternately.
fn compare(options: &Options, masters: [&Path; 2], results: &mut Results) -> Result<()> {
    let mut series = [Series::new(), Series::new()];
    let mut floors = Floors::default();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        floors.measure(options.effort)?;
        // Alternate the order in each round.
        for at in [round % 2, 1 - round % 2] {
            sample::sample(masters[at], options.effort, &mut series[at])
                .with_context(|| masters[at].display().to_string())?;
        }
    }
    let [ours, theirs] = series;
    let rows = report::compare(&ours, &theirs, &|measure| floors.of(measure));
    print!("{}", report::text(&rows));
    results.table = report::markdown(&rows);
    results.plot = plot::svg(options.effort.services, &ours, &theirs);
    results.missed |= rows.iter().any(report::Row::missed);
    Ok(())
}

fn growth(options: &Options, masters: [&Path; 2]) -> Result<String> {
    eprintln!("much at once");
    let mut reports = Vec::new();
    for master in masters {
        let measured = growth::measure(master, options.effort);
        reports.push(measured.with_context(|| master.display().to_string())?);
    }
    Ok(growth::markdown(&reports[0], &reports[1]))
}

/// Builds the measured programs and returns their directory.
fn build() -> Result<PathBuf> {
    for what in [
        &["--bins"][..],
        &["--package", "benches", "--bin", "timed"],
        &["--package", "master-services", "--example", "ordered"],
    ] {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet"])
            .args(what)
            .current_dir(home().join(".."))
            .status()
            .context("cargo")?;
        ensure!(status.success(), "cargo build {}", what.join(" "));
    }
    let own = std::env::current_exe()?;
    // Otherwise dirty pages of the new program would count as memory of the process that runs it.
    nix::unistd::sync();
    Ok(own.with_file_name("master"))
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Writes the results to the source directory.
fn keep(results: &Results, machine: &str, rounds: usize) -> Result<()> {
    let Results {
        table,
        growth,
        profile,
        others,
        spawners,
        pools,
        spamd,
        readers,
        confined,
        upgrades,
        plot,
        ..
    } = results;
    let text = format!(
        "# Our master beside Postfix's\n\n\
         Made by `cargo run --release -p benches`; medians of {rounds} rounds, the two masters in \
         turn.\n\n\
         {machine}.\n\n\
         {table}\n\
         Processor time is that of all threads of the master, by its process's clock, and of living \
         children that run the master's own program; at a start and a reload, where it has no other \
         children, that of all processes that it starts, as the kernel counts it for their control \
         group. \
         The floor is the same work without a master: for a spawn clone and wait for the same \
         static program, for a start creating the same sockets, for a warm child reading its two \
         reports. With a single client, processors fall asleep between its steps, and a master \
         that works more keeps them awake; on one processor this effect is absent. Private memory \
         is the kernel's anonymous memory.\n\n\
         ![Cost against the number of services](cost.svg)\n\n\
         ## Many children at once\n\n\
         {growth}\n\
         ## Where the time goes\n\n\
         {profile}\n\
         ## Beside other programs\n\n\
         {others}\n\
         ## Any program for each connection\n\n\
         {spawners}\n\
         ## Ordered pools\n\n\
         {pools}\n\
         ## Beside spamd\n\n\
         {spamd}\n\
         ## Readers of the status document\n\n\
         {readers}\n\
         ## A child with limits and a sandbox\n\n\
         {confined}\n\
         ## Upgrades\n\n\
         {upgrades}"
    );
    for (name, text) in [("RESULTS.md", &text), ("cost.svg", plot)] {
        let path = home().join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Milliseconds, and microseconds.
fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
