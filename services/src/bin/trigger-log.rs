//! Logs each wake-up that it gets, for observing the master's wake-ups.

use std::process::ExitCode;

fn main() -> ExitCode {
    services::run(|service| {
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
