//! statusd(8): shows a master's status to users and to monitoring systems.
//!
//! `watch` requests the master's status every two seconds, independent of clients. It keeps the
//! answer and a short `history`, which `saved` saves for the next process. `answer` serves them
//! over HTTP to clients that know its name (`host`); `metrics`, `ready` and `view` are the formats, and the page is in `page/`. A client's
//! request never causes a request to the master, so the master's load does not depend on the number
//! of clients.

#![forbid(unsafe_code)]

mod answer;
mod history;
mod host;
mod metrics;
mod ready;
mod saved;
mod shared;
mod view;
mod watch;

#[cfg(test)]
use testkit::documents as testing;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use services::{About, Error, Log, Service};

use answer::Site;
use host::Hosts;
use ready::Rules;
use watch::{MasterData, Watch};

/// The parameter that names the file of the history.
const HISTORY_FILE: &str = "statusd_history_file";
/// The parameter with the share of busy processes that makes a service unready.
const BUSY_PERCENT: &str = "statusd_busy_percent_is_unready";
/// The parameter with the names of this server.
const HOST_NAMES: &str = "statusd_host_names";

const ABOUT: About = About {
    summary: "Shows the status of the master over HTTP.",
    arguments: "",
    version: env!("CARGO_PKG_VERSION"),
};

fn main() -> ExitCode {
    services::run_as(&ABOUT, serve)
}

fn serve(mut service: Service) -> Result<(), Error> {
    // The history is in memory, so there is only one process, and it does not end after a number of
    // clients.
    service.require_alone()?;
    service.set_default("max_use", "0");
    service.set_default("max_idle", "1h");
    // A slow client keeps its answer in memory, so limit their number.
    service.set_default("max_clients", "30");
    let socket = socket(&mut service)?;
    let file = history_file(&mut service)?;
    let limit = service.time("statusd_timeout", "10s")?;
    let rules = Rules {
        throttled: service.boolean("statusd_throttled_is_unready", true)?,
        stalled: service.boolean("statusd_stalled_is_unready", true)?,
        failed_reload: service.boolean("statusd_failed_reload_is_unready", true)?,
        busy_percent: busy_percent(&mut service)?,
    };
    let hosts = hosts(&mut service)?;
    service.require_unprivileged()?;
    // Privileges must be dropped before a second thread exists.
    service.drop_privileges()?;
    let log = service.log();
    let (history, day) = match &file {
        Some(file) => saved::load(file).map_err(|error| {
            service.reject(HISTORY_FILE, &format!("{}: {error}", file.display()))
        })?,
        None => Default::default(),
    };
    let watch = Watch::start(socket, history, day, keeper(file.clone(), &log))?;
    let site = Arc::new(Site::new(watch.clone(), hosts, rules, log.clone()));
    let result = service.multi(move |client| {
        let site = Arc::clone(&site);
        async move { site.serve(client, limit).await }
    });
    keeper(file, &log)(&watch.known());
    result
}

/// The master's status socket.
fn socket(service: &mut Service) -> Result<PathBuf, Error> {
    let socket = PathBuf::from(service.string("statusd_socket", master::status::SOCKET)?);
    Ok(match service.transport() {
        Some(_) => socket,
        // Without a master, the queue directory is not the working directory.
        None => service.path("queue_directory", ".")?.join(socket),
    })
}

/// How many percent of busy processes are too many for new clients.
fn busy_percent(service: &mut Service) -> Result<u32, Error> {
    let percent = service.number(BUSY_PERCENT, "0", 0)?;
    if percent > 100 {
        return Err(service.reject(BUSY_PERCENT, "expected a number from 0 to 100"));
    }
    Ok(percent)
}

/// The names of this server.
fn hosts(service: &mut Service) -> Result<Hosts, Error> {
    let names = service.string(HOST_NAMES, "$myhostname")?;
    Hosts::parse(&names).map_err(|problem| service.reject(HOST_NAMES, &problem))
}

/// The file in which the history is saved, if one is configured.
fn history_file(service: &mut Service) -> Result<Option<PathBuf>, Error> {
    let default = "$data_directory/statusd.history";
    // An empty value is no path.
    let is_empty = matches!(service.string(HISTORY_FILE, default), Ok(file) if file.is_empty());
    let is_wanted = !is_empty && service.transport().is_some();
    is_wanted
        .then(|| service.path(HISTORY_FILE, default))
        .transpose()
}

/// What saves the history, if it is wanted.
fn keeper(file: Option<PathBuf>, log: &Log) -> impl Fn(&MasterData) + Send + use<> {
    let log = log.clone();
    move |data| {
        let Some(file) = &file else {
            return;
        };
        if let Err(error) = saved::save(&data.history, &data.day, file) {
            let (file, reason) = (file.display(), master::errors::describe_error(&error));
            log.warning(format!("cannot leave the history in {file}: {reason}"));
        }
    }
}
