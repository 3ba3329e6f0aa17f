//! statusd(8): shows what a master tells of itself, to people and to monitoring.
//!
//! `watch` asks the master every few seconds, with clients or without, and keeps the answer and a
//! short `history`, which is its `legacy` to the next process. `answer` serves that over HTTP:
//! `metrics`, `ready` and `view` put it into words, and the page is in `page/`. A client's request
//! never makes statusd ask the master, so that many clients cost the master no more than one.

#![forbid(unsafe_code)]

mod answer;
mod history;
mod legacy;
mod metrics;
mod ready;
mod view;
mod watch;

#[cfg(test)]
use testkit::documents as testing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use services::{Error, Log, Service};

use answer::Site;
use history::History;
use ready::Rules;
use watch::Watch;

/// The parameter that names the file of the history.
const HISTORY_FILE: &str = "statusd_history_file";

fn main() -> ExitCode {
    services::run(serve)
}

fn serve(mut service: Service) -> Result<(), Error> {
    // What is kept is kept by one process: it stays, however many clients it has had.
    service.require_alone()?;
    service.set_default("max_use", "0");
    service.set_default("max_idle", "1h");
    // Each may hold an answer in memory for as long as it is slow.
    service.set_default("max_clients", "30");
    let socket = socket(&mut service)?;
    let legacy = legacy_file(&mut service)?;
    let limit = service.time("statusd_timeout", "10s")?;
    let rules = Rules {
        throttled: service.boolean("statusd_throttled_is_unready", true)?,
        failed_reload: service.boolean("statusd_failed_reload_is_unready", true)?,
    };
    // Before there is a second thread.
    service.drop_privileges()?;
    let log = service.log();
    let history = match &legacy {
        Some(file) => legacy::inherit(file).map_err(|error| {
            service.reject(HISTORY_FILE, &format!("{}: {error}", file.display()))
        })?,
        None => History::default(),
    };
    let watch = Watch::start(socket, history)?;
    let site = Arc::new(Site::new(watch.clone(), rules, log.clone()));
    let result = service.multi(move |client| {
        let site = Arc::clone(&site);
        async move { site.serve(client, limit).await }
    });
    if let Some(file) = legacy {
        leave(&watch.known().history, &file, &log);
    }
    result
}

/// Where the master tells its status.
fn socket(service: &mut Service) -> Result<PathBuf, Error> {
    let socket = PathBuf::from(service.string("statusd_socket", master::status::SOCKET)?);
    Ok(match service.transport() {
        Some(_) => socket,
        // No master has made the queue directory the working directory.
        None => Path::new(&service.string("queue_directory", ".")?).join(socket),
    })
}

/// Where the history waits for the next process, if there is to be one.
fn legacy_file(service: &mut Service) -> Result<Option<PathBuf>, Error> {
    let file = service.string(HISTORY_FILE, "$data_directory/statusd.history")?;
    let is_wanted = !file.is_empty() && service.transport().is_some();
    Ok(is_wanted.then(|| file.into()))
}

fn leave(history: &History, file: &Path, log: &Log) {
    if let Err(error) = legacy::leave(history, file) {
        let (file, reason) = (file.display(), master::errors::describe_error(&error));
        log.warning(format!("cannot leave the history in {file}: {reason}"));
    }
}
