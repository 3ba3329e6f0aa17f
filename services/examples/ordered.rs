//! A child of an ordered pool. It greets each client with its process ID and repeats one line that
//! the client sends.
//!
//! ```text
//! master.cf     127.0.0.1:7009 inet n y n - 5 ordered
//! master.toml   [service."127.0.0.1:7009/inet"]
//!               accept = "ordered"
//! ```
//!
//! Expensive preparation (a model, a database) belongs here, before the call of `ordered`: it is
//! done once for each process, and clients reach only processes that have finished it.
use services::{Client, run};
use std::io::{BufRead, BufReader, Write};

fn main() -> std::process::ExitCode {
    run(|service| service.ordered(greet))
}
fn greet(client: &mut Client) -> std::io::Result<()> {
    writeln!(client, "{}", std::process::id())?;
    let mut line = String::new();
    BufReader::new(&*client).read_line(&mut line)?;
    client.write_all(line.as_bytes())
}
