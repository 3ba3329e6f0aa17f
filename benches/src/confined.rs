//! Compares starting a child of a service without limits and sandbox with starting one that has
//! everything set. The master is ours, and the child the same, for each connection.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::effort::Effort;
use crate::load;
use crate::spread::{Goal, Spread};
use crate::system::{System, table};
use crate::{micros, millis};

/// The goal for the master's processor time, relative to a start without settings.
const CPU: Goal = Goal::AtMost(1.3);
/// The goal for the time to the first byte, in milliseconds more.
const WAIT: Goal = Goal::AtMost(2.0);

/// One of each kind of setting.
const EVERYTHING: &str = "\
[service.\"s0/unix\"]
limit_nofile = 1024
limit_core = 0
limit_as = \"1G\"
limit_cpu = \"1h\"
limit_data = \"1G\"
limit_fsize = \"1G\"
limit_nproc = 1000
limit_stack = \"8M\"
limit_memlock = \"64K\"
nice = 1
ionice = \"best-effort:5\"
oom_score_adjust = 100
umask = \"0077\"
cpu_affinity = \"0-1\"
user = \"daemon\"
supplementary_groups = [\"mail\"]
no_new_privileges = true
capability_bounding_set = [\"CAP_NET_BIND_SERVICE\"]
ambient_capabilities = [\"CAP_NET_BIND_SERVICE\"]
system_call_filter = [\"~@ipc\", \"~@resources\", \"~@unusual\"]
isolate = [\"signals\", \"abstract_sockets\"]
read_only_paths = [\"$daemon_directory\", \"/usr\", \"/etc\", \"/lib\", \"/lib64\", \"$queue_directory\"]
read_write_paths = [\"$data_directory\", \"/dev/null\"]
";

/// Measures both alternately, in `rounds` rounds. Returns a table in Markdown, and whether a goal was
/// missed.
pub fn measure(master: &Path, effort: Effort, rounds: usize) -> Result<(String, bool)> {
    let mut samples = [const { (Vec::new(), Vec::new()) }; 2];
    for round in 0..rounds {
        for at in [round % 2, 1 - round % 2] {
            let settings = if at == 0 { "" } else { EVERYTHING };
            let (cpu, wait) = sample(master, settings, effort)?;
            samples[at].0.push(cpu);
            samples[at].1.push(wait);
        }
    }
    let [free, confined] = samples.map(|(cpu, wait)| (Spread::of(&cpu), Spread::of(&wait)));
    let ratio = confined.0.median / free.0.median;
    let more = confined.1.median - free.1.median;
    let mut text =
        String::from("| | free | everything set | | goal | reached |\n|---|---|---|---|---|---|\n");
    for (what, free, confined, compared, goal, value) in [
        (
            "master's processor time for a start, us",
            free.0,
            confined.0,
            format!("{ratio:.2} times"),
            CPU,
            ratio,
        ),
        (
            "client's time to the first byte, ms",
            free.1,
            confined.1,
            format!("{more:.2} more"),
            WAIT,
            more,
        ),
    ] {
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {compared} | {} | {} |",
            free.text(),
            confined.text(),
            goal.text(),
            goal.reached(value)
        );
    }
    let is_reached = |goal: Goal, value| goal.reached(value) == "yes";
    Ok((text, !(is_reached(CPU, ratio) && is_reached(WAIT, more))))
}

/// The master's processor time for a start, and the median time to the first byte.
fn sample(master: &Path, settings: &str, effort: Effort) -> Result<(f64, f64)> {
    let system = System::new()?;
    system.install(&master.with_file_name("master-exec"), "master-exec")?;
    system.install(master, "master")?;
    fs::write(system.path("etc/master.toml"), settings)?;
    system.configure(&table(1, "once"))?;
    let running = system.start(&system.path("sbin/master"))?;
    let socket = system.socket("s0");
    load::run(&socket, effort.spawns / 10, 1)?;
    running.rest()?;
    let before = running.process().cpu_with_helpers()?;
    let load = load::run(&socket, effort.spawns, 1).context("clients")?;
    running.rest()?;
    let cpu = running.process().cpu_with_helpers()? - before;
    Ok((
        micros(cpu) / effort.spawns as f64,
        millis(load.median_wait()),
    ))
}
