//! Writes services as a service table. Reading that text gives the same services.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::config::text::is_blank;
use crate::config::words::{Words, unbraced};
use crate::config::{Endpoint, Service};

/// One line for each service, in their order. All columns are written out, except for a wake-up
/// time that is not set. An argument that the file format cannot express, such as one with a line
/// end, cannot be written.
pub(in crate::config) fn print(services: &[Arc<Service>]) -> Vec<u8> {
    let mut text = Vec::new();
    for service in services {
        text.extend_from_slice(columns(service).as_bytes());
        for arg in &service.args {
            text.push(b' ');
            text.extend(written(arg));
        }
        text.push(b'\n');
    }
    text
}

fn columns(service: &Service) -> String {
    let Service {
        name,
        kind,
        max,
        command,
        ..
    } = service;
    let private = is_private(&service.endpoint);
    let [private, unprivileged, chroot] =
        [private, service.unprivileged, service.chroot].map(|yes| if yes { "y" } else { "n" });
    let wakeup = match service.wakeup {
        None => "-".to_owned(),
        Some(wakeup) => {
            let mark = if wakeup.conditional { "?" } else { "" };
            format!("{}{mark}", wakeup.every.as_secs())
        }
    };
    format!(
        "{name:<9} {:<5} {private:<7} {unprivileged:<7} {chroot:<7} {wakeup:<7} {max:<7} {command}",
        kind.as_str()
    )
}

fn is_private(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Inet(_) => false,
        Endpoint::Path(path) => path.starts_with("private"),
    }
}

/// The argument, in braces if it would otherwise be read as a different argument or as several.
fn written(arg: &OsStr) -> Vec<u8> {
    let arg = arg.as_bytes();
    let is_read_back = Words::new(arg, is_blank).braced_word() == Some(0..arg.len());
    if is_read_back && unbraced(arg) == Ok(arg) {
        arg.to_vec()
    } else {
        [b"{", arg, b"}"].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::parse_master;
    use crate::config::tests::DEBIAN_MASTER_CF;

    fn services(master_cf: &str) -> Vec<Arc<Service>> {
        parse_master(master_cf).expect("a good table").services
    }

    fn printed(master_cf: &str) -> String {
        String::from_utf8(print(&services(master_cf))).expect("a test's text")
    }

    /// The services without their line numbers.
    fn contents(services: &[Arc<Service>]) -> Vec<Service> {
        let unplaced = |service: &Arc<Service>| Service {
            table: std::path::Path::new("").into(),
            line: 0,
            ..Service::clone(service)
        };
        services.iter().map(unplaced).collect()
    }

    fn assert_survives(master_cf: &str) {
        let printed = printed(master_cf);
        assert_eq!(
            contents(&services(&printed)),
            contents(&services(master_cf)),
            "{printed}"
        );
    }

    #[test]
    fn every_column_is_written_out() {
        assert_eq!(
            printed("# c\nsmtp inet n - - - - smtpd\n  -o { a = b }\nx unix-dgram - n y 0 0 x\n"),
            "smtp      inet  n       y       n       -       100     smtpd -o {a = b}\n\
             x         unix-dgram y       n       y       -       0       x\n"
        );
    }

    #[test]
    fn a_wakeup_keeps_its_mark() {
        let table = printed("a fifo n - - 60 1 a\nb unix n - - 1000? 1 b\n");
        assert!(table.contains(" 60      1 "), "{table}");
        assert!(table.contains(" 1000?   1 "), "{table}");
    }

    #[test]
    fn debians_table_survives() {
        assert_survives(DEBIAN_MASTER_CF);
    }

    #[test]
    fn endpoints_of_all_forms_survive() {
        assert_survives(
            "smtp inet n - - - - a\n127.0.0.1:smtp inet n - - - - a\n[::1]:26 inet n - - - - a\n\
             :27 inet n - - - - a\nlocalhost:http inet n - - - - a\na/b unix n - - - - a\n\
             a/b unix y - - - - a\nprivate/x fifo n - - - - a\nd pass - - - - - a\n",
        );
    }

    #[test]
    fn arguments_survive_with_their_blanks_and_braces() {
        for args in [
            "{}",
            "{ }",
            "{a b}",
            "{ {a} }",
            "{ {a b} }",
            "{ {a}b }",
            "{ {a} {b} }",
            "a={b c}",
            "a={ b",
            "a={ b ",
            "}",
            "} a{ b c",
            "a}b {c d}",
            "\x0ba",
            "\x0b{a} b",
            "# a",
            "-",
            "${a?b} $(c d)",
        ] {
            assert_survives(&format!("x unix - - - - - x {args}\n"));
        }
    }
}
