//! `master.toml` beside a `main.cf`, and without one.

use super::testing::{sources, stand_alone};
use super::{Config, Diagnostics, Source, Sources, findings};

pub fn run(input: &[u8]) {
    let main_cf = "compatibility_level = 3.6\nqueue_directory = /q\na = $syslog_name\n";
    let table = "a unix - - - - - a\n";
    if let Ok(config) = with(sources(main_cf, table), input) {
        assert_eq!(config.parameters.queue_directory.as_os_str(), "/q");
    }
    let _ = with(stand_alone(None, table), input);
}

fn with(sources: Sources, input: &[u8]) -> Result<Config, Diagnostics> {
    let master_toml = Some(Source {
        path: "master.toml".into(),
        text: input.to_vec(),
    });
    findings::parse(&Sources {
        master_toml,
        ..sources
    })
}
