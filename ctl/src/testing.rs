//! Status documents for tests, made from a service table.

use std::path::PathBuf;

use master::config::{Base, Config, Source, Sources, StandAlone, User};
use master::files::Names;
use master::status::{Document, FORMAT, Service, parameters};

/// The configuration of a table and a `master.toml` with these texts.
pub fn config(table: &str, toml: &str) -> Config {
    let path = |name: &str| PathBuf::from("/etc/services").join(name);
    let source = |name: &str, text: &str| Source {
        path: path(name),
        text: text.into(),
    };
    let sources = Sources {
        directory: path(""),
        base: Base::StandAlone(StandAlone {
            daemon_directory: "/usr/libexec".into(),
            queue_directory: "/run/master".into(),
            data_directory: "/var/lib/master".into(),
            user: Some(User { uid: 1, gid: 1 }),
        }),
        master_cf: source("master.cf", table),
        more_tables: Vec::new(),
        master_toml: Some(source("master.toml", toml)),
        if_others_may_write: None,
        more_toml: Vec::new(),
        has_drop_ins: true,
    };
    Config::parse(&sources, &Names).expect("a good configuration")
}

/// The document of a master that has just been started with this table.
pub fn document(table: &str) -> Document {
    let config = config(table, "");
    let services = (0..).zip(&config.services);
    Document {
        format: FORMAT,
        version: "0.1.0".to_owned(),
        pid: 4711,
        time: 100_000.0,
        started: 90_000.0,
        configuration: "/etc/services".to_owned(),
        queue_directory: "/run/master".to_owned(),
        settings: parameters(&config.parameters),
        log: "ok".into(),
        verbose: false,
        generation: 1,
        loaded: 90_000.0,
        reloads: 0,
        last_reload: None,
        upgrades: 0,
        last_upgrade: None,
        services: services
            .map(|(place, service)| Service::configured(place, service))
            .collect(),
    }
}
