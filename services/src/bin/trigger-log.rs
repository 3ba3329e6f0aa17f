//! Logs each wake-up that it gets, for observing the master's wake-ups.

use std::process::ExitCode;

use services::About;

const ABOUT: About = About {
    summary: "Logs wake-ups.",
    arguments: "",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, |service| {
        let (log, name) = (service.log(), service.name().to_owned());
        service.trigger(move |request| {
            log.info(format!(
                "{name}: woken up by \"{}\"",
                request.escape_ascii()
            ));
            Ok(())
        })
    })
}
