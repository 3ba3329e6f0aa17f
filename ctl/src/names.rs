//! Finds a service by its name on the command line.

use std::sync::Arc;

use master::config::{self, Config, nearest};
use master::control::{Target, identity};
use master::status::{Document, Service};

use crate::failure::{Failure, Status};

/// The service with this name: the table's first column or the address, optionally followed by the
/// type, as in `smtp/unix`.
///
/// # Errors
/// No service has this name, or several have it.
pub fn find<'a>(document: &'a Document, name: &str) -> Result<&'a Service, Failure> {
    let services = document.services.iter();
    let found: Vec<&Service> = services.filter(|service| is_meant(service, name)).collect();
    match found[..] {
        [service] => Ok(service),
        [] => {
            let services = document.services.iter();
            let names = services.flat_map(|s| [&*s.name, &*s.endpoint]);
            Err(unknown(name, names, "\"masterctl status\" shows all"))
        }
        _ => Err(ambiguous(
            name,
            found.iter().map(|s| full_name(s)).collect(),
        )),
    }
}

/// The service, in the form of a control request.
pub fn target(service: &Service) -> Target {
    Target {
        place: service.place,
        identity: identity(&service.kind, &service.endpoint),
    }
}

/// `name/type`, which is unique.
pub fn full_name(service: &Service) -> String {
    format!("{}/{}", service.name, service.kind)
}

fn is_meant(service: &Service, name: &str) -> bool {
    is_name_of(name, [&service.name, &service.endpoint], &service.kind)
}

/// Whether a name on the command line is one of a service's own, alone or followed by the type.
pub fn is_name_of(name: &str, own: [&str; 2], kind: &str) -> bool {
    let with_type = name
        .strip_suffix(kind)
        .and_then(|rest| rest.strip_suffix('/'));
    own.into_iter()
        .any(|own| own == name || Some(own) == with_type)
}

/// A service of a configuration.
///
/// # Errors
/// No service has this name, or several have it.
pub fn configured<'a>(config: &'a Config, name: &str) -> Result<&'a config::Service, Failure> {
    let is_meant = |service: &&Arc<config::Service>| {
        is_name_of(
            name,
            [&service.name, &service.canonical],
            service.kind.as_str(),
        )
    };
    let found: Vec<_> = config.services.iter().filter(is_meant).collect();
    match found[..] {
        [service] => Ok(service),
        [] => {
            let services = config.services.iter();
            let names = services.flat_map(|s| [&*s.name, &*s.canonical]);
            Err(unknown(name, names, "see the first column of the table"))
        }
        _ => {
            let names = found.iter().map(|s| format!("{}/{}", s.name, s.kind));
            Err(ambiguous(name, names.collect()))
        }
    }
}

fn ambiguous(name: &str, meant: Vec<String>) -> Failure {
    let meant = meant.join(" or ");
    let message = format!("\"{name}\" could be {meant}: say which");
    Failure::new(Status::UnknownService, message)
}

fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str>, otherwise: &str) -> Failure {
    let advice = match nearest(name, known) {
        Some(known) => format!("did you mean \"{known}\"?"),
        None => otherwise.to_owned(),
    };
    let message = format!("there is no service \"{name}\": {advice}");
    Failure::new(Status::UnknownService, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::document;

    const TABLE: &str = "smtp inet n - - - - smtpd\nsmtp unix - - - - - smtp\n\
                         bounce unix - - - - 0 bounce\n";

    fn found(name: &str) -> String {
        match find(&document(TABLE), name) {
            Ok(service) => full_name(service),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn a_service_has_several_names() {
        for name in [
            "bounce",
            "bounce/unix",
            "private/bounce",
            "private/bounce/unix",
        ] {
            assert_eq!(found(name), "bounce/unix");
        }
        assert_eq!(found("smtp/inet"), "smtp/inet");
        assert_eq!(found("private/smtp"), "smtp/unix");
    }

    #[test]
    fn a_name_that_two_services_have_is_not_guessed_at() {
        assert_eq!(
            found("smtp"),
            "\"smtp\" could be smtp/inet or smtp/unix: say which"
        );
    }

    #[test]
    fn a_name_that_is_nearly_right_brings_a_suggestion() {
        assert_eq!(
            found("bonce"),
            "there is no service \"bonce\": did you mean \"bounce\"?"
        );
        assert_eq!(
            found("xyzzy"),
            "there is no service \"xyzzy\": \"masterctl status\" shows all"
        );
    }
}
