//! `master.cf`: the service table (master(5); Postfix, `master_ent.c` and `master_conf.c`).

mod endpoint;
mod entry;
mod print;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use self::entry::Entry;
pub(super) use self::print::print;
use super::lines::logical_lines;
use super::parameters::TableSettings;
use super::{
    ByIdentity, Diagnostic, Diagnostics, Endpoint, Place, Position, Resolver, Service, Severity,
    Source,
};

/// Reads the table. Returns the services without errors, in the order of their lines. Services of
/// `master_service_disable` are left out. `if_empty` is the severity of an empty table.
pub(super) fn parse(
    source: &Source,
    settings: &TableSettings,
    if_empty: Option<Severity>,
    resolver: &dyn Resolver,
    findings: &mut Diagnostics,
) -> Vec<Arc<Service>> {
    let mut services = HashSet::new();
    let lines = logical_lines(source, findings);
    if let Some(severity) = if_empty.filter(|_| lines.is_empty() && !findings.has_errors()) {
        findings.push(empty(source, severity));
    }
    for line in &lines {
        if let Some(service) = Entry::new(line, findings).service(settings, resolver) {
            add(&mut services, service, line.place(0), findings);
        }
    }
    let mut services: Vec<_> = services
        .into_iter()
        .map(|ByIdentity(service)| service)
        .collect();
    services.sort_by_key(|service| service.line);
    refuse_shared_paths(&services, &source.path, findings);
    warn_of_shared_addresses(&services, &source.path, findings);
    services
}

/// An empty file is what a full disk leaves of a table.
fn empty(source: &Source, severity: Severity) -> Diagnostic {
    Diagnostic {
        severity,
        path: source.path.clone(),
        position: None,
        message: "the service table is empty: expected services; if none is meant, set \
                  allow_empty_table to yes"
            .to_owned(),
    }
}

fn add(
    services: &mut HashSet<ByIdentity>,
    service: Service,
    place: Place,
    findings: &mut Diagnostics,
) {
    if let Some(ByIdentity(earlier)) = services.replace(ByIdentity(Arc::new(service))) {
        let message = format!(
            "duplicate master.cf entry for service \"{}\" ({}) -- using the last entry",
            earlier.name, earlier.canonical
        );
        findings.push(Diagnostic::warning(place, message));
    }
}

/// Two services cannot share a path: the second to listen would remove the socket of the first.
fn refuse_shared_paths(services: &[Arc<Service>], path: &Path, findings: &mut Diagnostics) {
    let mut owners = HashMap::new();
    for service in services {
        let Endpoint::Path(shared) = &service.endpoint else {
            continue;
        };
        let owner: &Service = owners.entry(shared).or_insert(service);
        if owner.kind != service.kind {
            let message = format!(
                "\"{}\" is the path of the {} service on line {} already: \
                 expected another name, or the other class",
                shared.display(),
                owner.kind,
                owner.line
            );
            findings.push(Diagnostic::error(line_of(service, path), message));
        }
    }
}

/// The kernel lets both services listen, and gives each client to one of the two.
fn warn_of_shared_addresses(services: &[Arc<Service>], path: &Path, findings: &mut Diagnostics) {
    let mut owners: HashMap<_, &Service> = HashMap::new();
    for service in services {
        for address in service.endpoint.addresses() {
            let Some(owner) = owners.insert(address, service) else {
                continue;
            };
            let message = format!(
                "the services on lines {} and {} both listen on {address}: clients will reach \
                 either of them",
                owner.line, service.line
            );
            findings.push(Diagnostic::warning(line_of(service, path), message));
        }
    }
}

fn line_of(service: &Service, path: &Path) -> Place {
    Place {
        path: path.to_owned(),
        position: Some(Position {
            line: service.line,
            column: 1,
        }),
    }
}

#[cfg(test)]
mod tests;
