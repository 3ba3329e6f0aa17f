//! Returns each client's text in capitals: a complete service in ten lines.
use services::{Client, run};
use std::io::{BufRead, BufReader, Write};

fn main() -> std::process::ExitCode {
    run(|service| service.single(shout))
}
fn shout(client: &mut Client) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&*client).read_line(&mut line)?;
    client.write_all(line.to_uppercase().as_bytes())
}
