//! Describes the machine and the date of the measurement.

use std::fs;
use std::process::Command;

/// Processor, memory, kernel, Postfix's version and date, in one sentence.
pub fn described() -> String {
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load
        .split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned();
    format!(
        "{}: {cpus} x {cpu}, Linux {}, Postfix {}, load average at the end {load}",
        said("date", &["-u", "+%Y-%m-%d"]),
        kernel.trim(),
        said("postconf", &["-dh", "mail_version"]),
    )
}

/// The first value with this name in a file of `NAME : VALUE` lines.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The output of a command.
fn said(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
