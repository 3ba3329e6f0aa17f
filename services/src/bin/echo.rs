//! The echo service (RFC 862): sends a client's data back.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use services::{About, Client};

const ABOUT: About = About {
    summary: "Returns what a client sends.",
    arguments: "",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |mut service| {
        let silence = service.time("echo_timeout", "300s")?;
        service.single(move |client| {
            client.set_timeout(silence);
            echo(client)
        })
    })
}

fn echo(client: &mut Client) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match client.read(&mut buffer)? {
            0 => return Ok(()),
            length => client.write_all(&buffer[..length])?,
        }
    }
}
