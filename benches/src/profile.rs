//! Samples our master with perf(1): the shares of each system call, and of the master's own code.
//! They show what can be optimized where a goal was missed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::effort::Effort;
use crate::load;
use crate::system::{System, table};

/// Samples per second. More would affect the result.
const FREQUENCY: &str = "4000";
/// Smaller shares are not listed; in percent.
const LEAST: f64 = 1.0;
/// Prefixes of kernel functions that implement system calls.
const CALLS: [&str; 4] = ["__x64_sys_", "__arm64_sys_", "__do_sys_", "ksys_"];
/// Other functions that implement system calls.
const OTHERS: [(&str, &str); 2] = [("kernel_clone", "clone"), ("kernel_wait4", "wait4")];
/// The name of the master's own code in the table.
const OWN: &str = "its own code";

/// Shares of the time in percent, by name.
type Shares = BTreeMap<String, f64>;

/// Both situations as a table in Markdown; empty if perf(1) is not installed or not allowed.
pub fn measure(master: &Path, effort: Effort) -> Result<String> {
    let works = Command::new("perf")
        .args(["record", "-q", "-e", "cpu-clock", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("left out: perf does not work here");
        return Ok(String::new());
    }
    let warm = sample(master, &table(1, "warm"), effort.connections * 5, 8)?;
    let spawns = sample(master, &table(5_000, "once"), effort.spawns * 5, 1)?;
    Ok(markdown(&warm, &spawns))
}

/// The shares while a service gets `connections` connections, `clients` at a time.
fn sample(master: &Path, lines: &str, connections: usize, clients: usize) -> Result<Shares> {
    let system = System::new()?;
    system.configure(lines)?;
    let running = system.start(master)?;
    let socket = system.socket("s0");
    load::run(&socket, connections / 10, 8)?;
    running.rest()?;
    let file = system.path("perf.data");
    let file = file.to_str().context("a path in UTF-8")?;
    let pid = running.process().0.to_string();
    let mut recorder = Command::new("perf")
        .args(["record", "-q", "--no-inherit", "-g", "-e", "cpu-clock"])
        .args(["-F", FREQUENCY, "-p", &pid, "-o", file])
        .stdout(Stdio::null())
        .spawn()
        .context("perf")?;
    let load = load::run(&socket, connections, clients);
    kill(Pid::from_raw(recorder.id() as i32), Signal::SIGINT)?;
    recorder.wait()?;
    load?;
    let mut shares = calls(&report(
        file,
        &["--children", "-F", "overhead_children,sym"],
    )?);
    let own = own(&report(file, &["--no-children", "-F", "overhead,dso"])?);
    shares.insert(OWN.to_owned(), own);
    Ok(shares)
}

fn report(file: &str, fields: &[&str]) -> Result<String> {
    let output = Command::new("perf")
        .args(["report", "-q", "--stdio", "-g", "none", "-i", file])
        .args(fields)
        .output()
        .context("perf")?;
    ensure!(output.status.success(), "perf report: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The lines of a report with their shares.
fn lines(report: &str) -> impl Iterator<Item = (f64, &str)> {
    report.lines().filter_map(|line| {
        let (share, rest) = line.trim().split_once('%')?;
        Some((share.parse().ok()?, rest.trim()))
    })
}

/// The system calls. Of several functions of one call, the outermost has the largest share, unless
/// it ends with a tail call.
fn calls(report: &str) -> Shares {
    let mut shares = Shares::new();
    for (share, rest) in lines(report) {
        let symbol = rest.split_whitespace().last().unwrap_or_default();
        let call = CALLS.iter().find_map(|prefix| symbol.strip_prefix(prefix));
        let other = OTHERS.iter().find(|(name, _)| *name == symbol);
        if let Some(name) = call.or(other.map(|(_, call)| *call)) {
            let known = shares.entry(format!("{name}(2)")).or_default();
            *known = known.max(share);
        }
    }
    shares
}

/// All code outside the kernel.
fn own(report: &str) -> f64 {
    let kernel = |rest: &str| rest.starts_with("[kernel");
    let others = lines(report).filter(|(_, rest)| !kernel(rest));
    // Starts at 0, because sum() of nothing is -0.
    others.fold(0.0, |sum, (share, _)| sum + share)
}

fn markdown(warm: &Shares, spawns: &Shares) -> String {
    let mut text = String::from(
        "| of the master's processor time, percent | warm children, 8 at a time \
         | a child for each, 5000 services |\n\
         |---|---:|---:|\n",
    );
    let share = |shares: &Shares, what: &str| shares.get(what).copied().unwrap_or_default();
    let mut names: Vec<&String> = warm.keys().chain(spawns.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let most = |what: &str| share(warm, what).max(share(spawns, what));
    names.retain(|what| most(what) >= LEAST);
    names.sort_by(|a, b| most(b).total_cmp(&most(a)));
    for what in names {
        let (warm, spawns) = (share(warm, what), share(spawns, what));
        let _ = writeln!(text, "| {what} | {warm:.0} | {spawns:.0} |");
    }
    text.push_str(
        "\nBy perf's samples; the rest is interrupts and the way in and out of the kernel. The \
         time in epoll_wait is for going to sleep and waking up.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_largest_share_of_its_functions() {
        let report = "\n  40.10%  [k] __x64_sys_recvmmsg\n   0.02%  [k] __x64_sys_clone\n  \
                      31.00%  [k] __do_sys_clone\n   5.00%  [.] master::run\n   \
                      9.00%  [k] kernel_wait4\n   2.00%  [k] kernel_init_pages\n";
        let shares = calls(report);
        assert_eq!(shares["recvmmsg(2)"], 40.1);
        assert_eq!(shares["clone(2)"], 31.0);
        assert_eq!(shares["wait4(2)"], 9.0);
        assert_eq!(shares.len(), 3);
    }

    #[test]
    fn what_is_not_the_kernels_is_its_own() {
        let report = "    80.00%  [kernel.kallsyms]\n    15.50%  master\n     1.50%  libc.so.6\n";
        assert_eq!(own(report), 17.0);
    }
}
