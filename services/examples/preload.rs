//! A preloaded service: a template that forks children. A child greets each client with its process ID
//! and repeats one line that the client sends.
//!
//! ```text
//! master.cf     127.0.0.1:7010 inet n y n - 5 preload
//! master.toml   [service."127.0.0.1:7010/inet"]
//!               preload = true
//! ```
//!
//! Expensive preparation (a model, a database) belongs here, before the call of `preload`: it is done
//! once, and its memory is shared by all children. A pool with `accept = "ordered"` calls `ordered` in
//! place of `single`.
use services::{Client, run};
use std::io::{BufRead, BufReader, Write};

fn main() -> std::process::ExitCode {
    run(|mut service| {
        let is_ordered = service.arguments().iter().any(|word| word == "ordered");
        service.preload()?;
        if is_ordered {
            return service.ordered(greet);
        }
        service.single(greet)
    })
}
fn greet(client: &mut Client) -> std::io::Result<()> {
    writeln!(client, "{}", std::process::id())?;
    let mut line = String::new();
    BufReader::new(&*client).read_line(&mut line)?;
    client.write_all(line.as_bytes())
}
