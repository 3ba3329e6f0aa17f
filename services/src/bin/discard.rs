//! The discard service (RFC 863): reads a client's data and discards it.

use std::io::Read;
use std::process::ExitCode;

use services::About;

const ABOUT: About = About {
    summary: "Discards what a client sends.",
    arguments: "",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |mut service| {
        let silence = service.time("discard_timeout", "300s")?;
        let mut buffer = vec![0; 16 * 1024];
        service.single(move |client| {
            client.set_timeout(silence);
            while client.read(&mut buffer)? > 0 {}
            Ok(())
        })
    })
}
