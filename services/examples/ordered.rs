//! A child of an ordered pool. It greets every client with its process ID and says after it what
//! the client says, one line.
//!
//! ```text
//! master.cf     127.0.0.1:7009 inet n y n - 5 ordered
//! master.toml   [service."127.0.0.1:7009/inet"]
//!               accept = "ordered"
//! ```
//!
//! What takes long (a model, a database) belongs before the service is told to serve: it is done
//! once for a process, and a client meets only processes that have done it.
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
