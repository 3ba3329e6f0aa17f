//! `master.cf`: the service table (master(5); Postfix, `master_ent.c` and `master_conf.c`).

mod endpoint;
mod entry;
mod print;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::entry::Entry;
pub(super) use self::print::print;
use super::lines::logical_lines;
use super::parameters::TableSettings;
use super::{Diagnostic, Diagnostics, Endpoint, Kind, Place, Position, Resolver, Service, Source};

/// Reads the table. The services that have no error come in the order of their lines, those of
/// `master_service_disable` left out.
pub(super) fn parse(
    source: &Source,
    settings: &TableSettings,
    resolver: &dyn Resolver,
    findings: &mut Diagnostics,
) -> Vec<Arc<Service>> {
    let mut table = Table::default();
    let lines = logical_lines(source, findings);
    if lines.is_empty() {
        let place = Place {
            path: source.path.clone(),
            position: None,
        };
        findings.push(Diagnostic::warning(place, "the service table is empty"));
    }
    for line in &lines {
        if let Some(service) = Entry::new(line, findings).service(settings, resolver) {
            table.add(service, line.place(0), findings);
        }
    }
    table.warn_of_shared_addresses(&source.path, findings);
    table.services()
}

#[derive(Default)]
struct Table {
    services: BTreeMap<(Kind, String), Service>,
    /// Who owns a path: the last to listen there would remove the socket of the others.
    owners: BTreeMap<PathBuf, (Kind, u32)>,
}

impl Table {
    fn add(&mut self, service: Service, place: Place, findings: &mut Diagnostics) {
        if let Some(conflict) = self.conflict(&service) {
            findings.push(Diagnostic::error(place, conflict));
            return;
        }
        let identity = (service.kind, service.canonical.clone());
        if let Some(earlier) = self.services.insert(identity, service) {
            let message = format!(
                "duplicate master.cf entry for service \"{}\" ({}) -- using the last entry",
                earlier.name, earlier.canonical
            );
            findings.push(Diagnostic::warning(place, message));
        }
    }

    fn conflict(&mut self, service: &Service) -> Option<String> {
        let Endpoint::Path(path) = &service.endpoint else {
            return None;
        };
        let owner = (service.kind, service.line);
        let (kind, line) = *self.owners.entry(path.clone()).or_insert(owner);
        (kind != service.kind).then(|| {
            format!(
                "\"{}\" is the path of the {kind} service on line {line} already: \
                 expected another name, or the other class",
                path.display()
            )
        })
    }

    /// The kernel would let both listen, and give each client to one or the other.
    fn warn_of_shared_addresses(&self, path: &Path, findings: &mut Diagnostics) {
        let mut owners = BTreeMap::new();
        for service in self.services.values() {
            for address in service.endpoint.addresses() {
                let Some(owner) = owners.insert(address, service) else {
                    continue;
                };
                let lines = (owner.line.min(service.line), owner.line.max(service.line));
                let message = format!(
                    "the services on lines {} and {} both listen on {address}: clients will \
                     reach either of them",
                    lines.0, lines.1
                );
                let place = Place {
                    path: path.to_owned(),
                    position: Some(Position {
                        line: lines.1,
                        column: 1,
                    }),
                };
                findings.push(Diagnostic::warning(place, message));
            }
        }
    }

    fn services(self) -> Vec<Arc<Service>> {
        let mut services: Vec<_> = self.services.into_values().map(Arc::new).collect();
        services.sort_by_key(|service| service.line);
        services
    }
}

#[cfg(test)]
mod tests;
