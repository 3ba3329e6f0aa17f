//! statusd(8): shows what a master tells of itself, to people and to monitoring.
//!
//! `watch` asks the master every few seconds, whether or not anybody looks, and keeps the answer
//! and a short `history`. `answer` serves that over HTTP: `metrics`, `ready` and `view` put it into
//! words, and the page is in `page/`. No client has the master asked, so that many clients cost it
//! no more than one.

#![forbid(unsafe_code)]

mod answer;
mod history;
mod metrics;
mod ready;
#[cfg(test)]
#[path = "../../tests/common/documents.rs"]
mod testing;
mod view;
mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use answer::Site;
use ready::Rules;
use watch::Watch;

fn main() -> ExitCode {
    services::run(|mut service| {
        // What is kept is kept by one process: it stays, however many clients it has had.
        service.require_alone()?;
        service.set_default("max_use", "0");
        service.set_default("max_idle", "1h");
        let mut socket = PathBuf::from(service.string("statusd_socket", master::status::SOCKET)?);
        if service.transport().is_none() {
            // No master has made the queue directory the working directory.
            socket = Path::new(&service.string("queue_directory", ".")?).join(socket);
        }
        let limit = service.time("statusd_timeout", "10s")?;
        let rules = Rules {
            throttled: service.boolean("statusd_throttled_is_unready", true)?,
            failed_reload: service.boolean("statusd_failed_reload_is_unready", true)?,
        };
        // Before there is a second thread.
        service.drop_privileges()?;
        let watch = Watch::start(socket)?;
        let site = Arc::new(Site::new(watch, rules, service.log()));
        service.multi(move |client| {
            let site = Arc::clone(&site);
            async move { site.serve(client, limit).await }
        })
    })
}
