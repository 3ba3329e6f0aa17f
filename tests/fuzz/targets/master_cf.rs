//! The service table, and the table that is printed from the result.

use std::sync::Arc;

use super::testing::sources;
use super::{Service, findings};

const MAIN_CF: &str = "compatibility_level = 3.6\nmaster_service_disable = off, pass, !on/pass\n";

pub fn run(input: &[u8]) {
    let Ok(config) = findings::parse(&sources(MAIN_CF, input)) else {
        return;
    };
    let printed = config.master_cf();
    let shown = String::from_utf8_lossy(&printed);
    let again = findings::parse(&sources(MAIN_CF, printed.as_slice()))
        .unwrap_or_else(|findings| panic!("{findings}\n{shown}"));
    assert_eq!(
        contents(&again.services),
        contents(&config.services),
        "{shown}"
    );
    assert_eq!(again.master_cf(), printed, "{shown}");
}

/// The services without their line numbers.
fn contents(services: &[Arc<Service>]) -> Vec<Service> {
    let unplaced = |service: &Arc<Service>| Service {
        line: 0,
        ..Service::clone(service)
    };
    services.iter().map(unplaced).collect()
}
