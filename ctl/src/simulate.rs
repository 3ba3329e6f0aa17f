//! `masterctl simulate`: what another process limit would do, by the master's own policy in simulated
//! time.

mod load;
mod world;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use master::config::{Config, Endpoint, Kind, Service};
use master::files::Names;
use serde_derive::Serialize;

use crate::arguments::Arguments;
use crate::connection::MasterClient;
use crate::names;
use crate::table::{self, Column};
use crate::words::counted;
use load::{Load, Slow, duration, integer, rate};
use world::{Manners, Outcome, simulate};

/// Clients of one run at the most: more would take minutes.
const CLIENTS_MAX: f64 = 10_000_000.0;
/// Clients of a forecast at the most.
const FORECAST_MAX: f64 = 1_000_000.0;
/// How often a running service is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// What is simulated.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The service whose settings are simulated, such as "smtp/inet"; by default one with Postfix's
    /// defaults
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// A service of the running master: its settings, and the load that it has now
    #[arg(long, value_name = "NAME", conflicts_with = "service")]
    from: Option<String>,
    /// How long the load of that service is measured
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    sample: Duration,
    /// Clients a second
    #[arg(long, value_parser = rate, required_unless_present = "from")]
    rate: Option<f64>,
    /// How long a client takes, such as 1.5s
    #[arg(long, value_name = "TIME", value_parser = duration, required_unless_present = "from")]
    time: Option<Duration>,
    /// The share of clients that take longer, and how long, such as 5%:20s
    #[arg(long, value_name = "SHARE:TIME")]
    slow: Option<Slow>,
    /// Process limits to compare, separated by commas; by default the service's own
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = integer::<u32>)]
    maxproc: Vec<u32>,
    /// The simulated time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    period: Duration,
    /// The time before that, of which nothing counts: no child is there at its beginning
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1m")]
    warm_up: Duration,
    /// How long a new child takes until it can serve a client
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "20ms")]
    start: Duration,
    /// Clients that a child serves before it leaves, Postfix's max_use; 0 is no limit
    #[arg(long, value_name = "N", value_parser = integer::<u32>, default_value_t = 100)]
    max_use: u32,
    /// How long a child waits for a client before it leaves, Postfix's max_idle
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "100s")]
    max_idle: Duration,
    /// The longest time for a client in stress mode
    #[arg(long, value_name = "TIME", value_parser = duration)]
    stress_time: Option<Duration>,
    /// Memory of one child, in MiB
    #[arg(long, value_name = "MIB", value_parser = integer::<u32>)]
    memory: Option<u32>,
    /// Other clients of the same kind for each seed
    #[arg(long, value_name = "N", value_parser = integer::<u64>, default_value_t = 1)]
    seed: u64,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

/// Times are in seconds.
#[derive(Debug, Serialize)]
struct Report {
    rate: f64,
    time: f64,
    slow_share: f64,
    slow_time: f64,
    /// Children that are busy on average, if each client finds one.
    needed: f64,
    period: f64,
    runs: Vec<Run>,
}

/// The result for one process limit.
#[derive(Debug, Serialize)]
struct Run {
    maxproc: u32,
    clients: usize,
    wait_p50: f64,
    wait_p99: f64,
    wait_most: f64,
    refused: u64,
    starts_per_second: f64,
    /// Shares of the time: 0 to 1.
    at_limit: f64,
    stressed: f64,
    children_mean: f64,
    children_most: usize,
    /// Of the most children, in MiB.
    memory_most: Option<u64>,
}

impl Run {
    fn new(maxproc: u32, outcome: &Outcome, memory: Option<u32>) -> Self {
        let time = outcome.time.as_secs_f64();
        let seconds = |percent| outcome.percentile(percent).as_secs_f64();
        let memory_of = |mib: u32| u64::from(mib) * outcome.most_children as u64;
        Self {
            maxproc,
            clients: outcome.waits.len(),
            wait_p50: seconds(50),
            wait_p99: seconds(99),
            wait_most: seconds(100),
            refused: outcome.refused,
            starts_per_second: outcome.starts as f64 / time,
            at_limit: outcome.at_limit.as_secs_f64() / time,
            stressed: outcome.stressed.as_secs_f64() / time,
            children_mean: outcome.child_time.as_secs_f64() / time,
            children_most: outcome.most_children,
            memory_most: memory.map(memory_of),
        }
    }
}

/// Simulates a service, and shows the result.
///
/// # Errors
/// The options are wrong, there is no such service, or the output fails.
pub fn run(arguments: &Arguments, options: &Options, out: &mut impl Write) -> Result<ExitCode> {
    let service = match options.service.as_ref().or(options.from.as_ref()) {
        Some(name) => configured(arguments, name)?,
        None => usual(),
    };
    let name = format!("{}/{}", service.name, service.kind);
    if service.is_ordered() {
        bail!("{name} is an ordered pool: simulate knows services with accept = \"shared\" only");
    }
    ensure!(
        !options.period.is_zero(),
        "--period: expected more than 0 s"
    );
    let load = match &options.from {
        Some(name) => measure(arguments, name, options)?,
        None => load(options, options.rate, options.time)?,
    };
    let clients = load.rate * (options.warm_up + options.period).as_secs_f64();
    if clients > CLIENTS_MAX {
        bail!(
            "{clients:.0} clients are too many: expected a --warm-up and a --period in which at most {CLIENTS_MAX} come"
        );
    }
    let report = report(&service, &load, options);
    if options.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        show(&report, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(service: &Service, load: &Load, options: &Options) -> Report {
    let mut limits = options.maxproc.clone();
    if limits.is_empty() {
        limits.push(service.max);
    }
    let manners = Manners {
        start: options.start,
        max_use: options.max_use,
        max_idle: options.max_idle,
        stress_time: options.stress_time,
    };
    let runs = limits.into_iter().map(|maxproc| {
        let service = Service {
            max: maxproc,
            // As the parser sets it.
            backlog: service.backlog.max(maxproc),
            ..service.clone()
        };
        // Each limit gets the same clients.
        let outcome = simulate(
            Arc::new(service),
            load.clone(),
            manners,
            options.warm_up,
            options.period,
        );
        Run::new(maxproc, &outcome, options.memory)
    });
    Report {
        rate: load.rate,
        time: load.time.as_secs_f64(),
        slow_share: load.slow.map_or(0.0, |slow| slow.share),
        slow_time: load.slow.map_or(0.0, |slow| slow.time.as_secs_f64()),
        needed: load.busy(),
        period: options.period.as_secs_f64(),
        runs: runs.collect(),
    }
}

/// What a limit does to clients.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    pub wait_p99: Duration,
    pub wait_most: Duration,
    pub refused: u64,
}

impl Forecast {
    /// Whether no client is refused, and none waits longer than this.
    pub fn serves_all_within(self, longest: Duration) -> bool {
        self.refused == 0 && self.wait_most <= longest
    }
}

/// Simulates a shared service with this limit and queue, and otherwise Postfix's defaults; none if that
/// would take long.
pub fn forecast(rate: f64, time: Duration, maxproc: u32, backlog: u32) -> Option<Forecast> {
    const WARM_UP: Duration = Duration::from_secs(60);
    const PERIOD: Duration = Duration::from_secs(300);
    let clients = rate * (WARM_UP + PERIOD).as_secs_f64();
    if !(1.0..=FORECAST_MAX).contains(&clients) {
        return None;
    }
    let service = Service {
        max: maxproc,
        backlog: backlog.max(maxproc),
        ..usual()
    };
    let manners = Manners {
        start: Duration::from_millis(20),
        max_use: 100,
        max_idle: Duration::from_secs(100),
        stress_time: None,
    };
    let load = Load::new(rate, time, None, 1);
    let outcome = simulate(Arc::new(service), load, manners, WARM_UP, PERIOD);
    Some(Forecast {
        wait_p99: outcome.percentile(99),
        wait_most: outcome.percentile(100),
        refused: outcome.refused,
    })
}

fn load(options: &Options, rate: Option<f64>, time: Option<Duration>) -> Result<Load> {
    let rate = rate.context("--rate is missing")?;
    let time = time.context("--time is missing")?;
    Ok(Load::new(rate, time, options.slow, options.seed))
}

/// The load that a service of the running master has: how many clients come, and, by the number of
/// children that are busy meanwhile, how long each takes.
fn measure(arguments: &Arguments, name: &str, options: &Options) -> Result<Load> {
    let client = MasterClient::new(arguments)?;
    let look = || -> Result<_> {
        let document = client.status()?.document;
        let service = names::find(&document, name)?;
        Ok((service.connections, f64::from(service.busy)))
    };
    let (begin, (first, _)) = (Instant::now(), look()?);
    let (mut busy, mut looks, mut last) = (0.0, 0.0, first);
    while begin.elapsed() < options.sample {
        sleep(INTERVAL);
        let (connections, now_busy) = look()?;
        (last, busy, looks) = (connections, busy + now_busy, looks + 1.0);
    }
    let rate = last.saturating_sub(first) as f64 / begin.elapsed().as_secs_f64();
    if rate <= 0.0 {
        bail!(
            "no client of {name} has come within {:?}: use a longer --sample, or --rate and --time",
            options.sample
        );
    }
    let time = Duration::from_secs_f64(busy / looks / rate);
    load(
        options,
        options.rate.or(Some(rate)),
        options.time.or(Some(time)),
    )
}

/// A service of the configuration.
fn configured(arguments: &Arguments, name: &str) -> Result<Service> {
    let sources = arguments.location()?.read()?;
    let config = Config::parse(&sources, &Names)
        .ok()
        .context("the configuration has errors: see \"masterctl check\"")?;
    Ok(names::configured(&config, name)?.clone())
}

/// A service for clients of the network, with Postfix's defaults.
fn usual() -> Service {
    Service {
        name: "smtp".into(),
        kind: Kind::Inet,
        canonical: "25".into(),
        endpoint: Endpoint::Inet(vec![SocketAddr::from(([0, 0, 0, 0], 25))]),
        unprivileged: true,
        chroot: false,
        wakeup: None,
        max: 100,
        command: "smtpd".into(),
        path: "smtpd".into(),
        args: Vec::new(),
        backlog: 100,
        throttle_time: Duration::from_secs(60),
        extra: None,
        table: std::path::Path::new("master.cf").into(),
        line: 1,
    }
}

const COLUMNS: [Column; 9] = [
    Column::right(0, "MAXPROC", 7),
    Column::right(1, "WAIT P50", 8),
    Column::right(1, "P99", 8),
    Column::right(1, "MOST", 8),
    Column::right(1, "REFUSED", 7),
    Column::right(1, "STARTS/S", 8),
    Column::right(1, "AT LIMIT", 8),
    Column::right(1, "CHILDREN", 8),
    Column::right(1, "MEMORY", 7),
];

fn show(report: &Report, out: &mut impl Write) -> Result<()> {
    let time = |seconds| wait(Duration::from_secs_f64(seconds));
    write!(
        out,
        "{} clients a second of {}",
        rounded(report.rate),
        time(report.time)
    )?;
    if report.slow_share > 0.0 {
        let percent = report.slow_share * 100.0;
        write!(
            out,
            ", {} % of {}",
            rounded(percent),
            time(report.slow_time)
        )?;
    }
    let needed = counted(report.needed.ceil() as usize, "child is", "children are");
    writeln!(out, ": {needed} busy on average")?;
    let rows = report.runs.iter().map(|run| {
        [
            run.maxproc.to_string(),
            time(run.wait_p50),
            time(run.wait_p99),
            time(run.wait_most),
            run.refused.to_string(),
            format!("{:.2}", run.starts_per_second),
            format!("{:.0} %", run.at_limit * 100.0),
            run.children_most.to_string(),
            run.memory_most
                .map_or("-".to_owned(), |mib| format!("{mib} M")),
        ]
    });
    writeln!(out, "{}", table::lines(&COLUMNS, rows))?;
    Ok(())
}

/// A number with no more digits than are of use.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// A waiting time in a unit that suits it.
fn wait(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0 => "0".to_owned(),
        0.0..0.1 => format!("{:.1} ms", seconds * 1000.0),
        0.1..1.0 => format!("{:.0} ms", seconds * 1000.0),
        1.0..100.0 => format!("{seconds:.1} s"),
        _ => crate::words::time(seconds),
    }
}

#[cfg(test)]
mod tests;
