//! `master.cf`: the service table (master(5); Postfix, `master_ent.c` and `master_conf.c`).

mod endpoint;
mod entry;
mod print;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

pub(super) use self::endpoint::{Location, SOCKET_PATH_MAX, locate_inet};
use self::entry::Entry;
pub(super) use self::print::print;
use super::lines::logical_lines;
use super::parameters::TableSettings;
use super::text::Text;
use super::{
    ByIdentity, Diagnostic, Diagnostics, Endpoint, Place, Position, Resolver, Service, Severity,
    Source, Sources,
};

/// Reads the tables. Returns the services without errors, in the order of files and lines. Services
/// of `master_service_disable` are left out. `if_empty` is the severity of no lines in any table.
pub(super) fn parse(
    sources: &Sources,
    settings: &TableSettings,
    if_empty: Option<Severity>,
    resolver: &dyn Resolver,
    findings: &mut Diagnostics,
) -> Vec<Arc<Service>> {
    let mut services = Vec::new();
    let texts = sources.tables().map(|source| {
        let table = Arc::from(&*source.path);
        (table, logical_lines(source, findings))
    });
    let texts: Vec<(Arc<Path>, _)> = texts.collect();
    let is_empty = texts.iter().all(|(_, lines)| lines.is_empty());
    if let Some(severity) = if_empty.filter(|_| is_empty && !findings.has_errors()) {
        findings.push(empty(&sources.master_cf, severity));
    }
    for (table, lines) in &texts {
        services.extend(read(table, lines, settings, resolver, findings));
    }
    if texts.len() > 1 {
        refuse_second_files(&mut services, findings);
    }
    refuse_shared_paths(&services, findings);
    warn_of_shared_addresses(&services, findings);
    services
}

/// The services of one table, in the order of its lines.
fn read(
    table: &Arc<Path>,
    lines: &[Text],
    settings: &TableSettings,
    resolver: &dyn Resolver,
    findings: &mut Diagnostics,
) -> Vec<Arc<Service>> {
    let mut services = HashSet::new();
    for line in lines {
        if let Some(service) = Entry::new(line, table, findings).service(settings, resolver) {
            add(&mut services, service, line.place(0), findings);
        }
    }
    let services = services.into_iter().map(|ByIdentity(service)| service);
    let mut services: Vec<_> = services.collect();
    services.sort_by_key(|service| service.line);
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

/// No file changes what another one says of a service: the reader of either would not know.
fn refuse_second_files(services: &mut Vec<Arc<Service>>, findings: &mut Diagnostics) {
    let mut owners = HashSet::new();
    services.retain(|service| {
        let key = ByIdentity(Arc::clone(service));
        let Some(ByIdentity(owner)) = owners.get(&key) else {
            return owners.insert(key);
        };
        let message = format!(
            "the service \"{}\" ({}) is also {}: expected it in one file only",
            owner.name,
            owner.canonical,
            on_line(owner, service)
        );
        findings.push(Diagnostic::error(place_of(service), message));
        false
    });
}

/// Where `owner` is written, for a message that names the file of `other`.
fn on_line(owner: &Service, other: &Service) -> String {
    // Of two names of one file, both are told.
    if owner.table.as_os_str() == other.table.as_os_str() {
        format!("on line {}", owner.line)
    } else {
        format!("on line {} of {}", owner.line, owner.table.display())
    }
}

/// Two services cannot share a path: the second to listen would remove the socket of the first.
fn refuse_shared_paths(services: &[Arc<Service>], findings: &mut Diagnostics) {
    let mut owners = HashMap::new();
    for service in services {
        let Endpoint::Path(shared) = &service.endpoint else {
            continue;
        };
        let owner: &Service = owners.entry(shared).or_insert(service);
        if owner.kind != service.kind {
            let message = format!(
                "\"{}\" is the path of the {} service {} already: \
                 expected another name, or the other class",
                shared.display(),
                owner.kind,
                on_line(owner, service)
            );
            findings.push(Diagnostic::error(place_of(service), message));
        }
    }
}

/// The kernel lets both services listen, and gives each client to one of the two.
fn warn_of_shared_addresses(services: &[Arc<Service>], findings: &mut Diagnostics) {
    let mut owners: HashMap<_, &Service> = HashMap::new();
    for service in services {
        for address in service.endpoint.addresses() {
            let Some(owner) = owners.insert(address, service) else {
                continue;
            };
            let message = format!(
                "this service and the one {} both listen on {address}: clients will reach either \
                 of them",
                on_line(owner, service)
            );
            findings.push(Diagnostic::warning(place_of(service), message));
        }
    }
}

fn place_of(service: &Service) -> Place {
    Place {
        path: service.table.to_path_buf(),
        position: Some(Position {
            line: service.line,
            column: 1,
        }),
    }
}

#[cfg(test)]
mod tests;
