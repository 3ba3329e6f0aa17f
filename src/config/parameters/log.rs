//! The parameters for the destination and the format of log lines.

use std::path::Path;

use super::LogFormat;
use super::reader::Reader;
use crate::config::Resolver;
use crate::config::text::{is_list_separator, shown};
use crate::config::words::Words;

/// The facility names of syslog(3) that Postfix accepts (`msg_syslog.c`).
pub const SYSLOG_FACILITIES: [&str; 20] = [
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "lpr", "mail", "news", "syslog", "user",
    "uucp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

pub(super) fn syslog_facility(reader: &mut Reader<'_>) -> Option<String> {
    let name = "syslog_facility";
    let facility = reader.nonempty(name)?;
    if !SYSLOG_FACILITIES.contains(&facility.as_str()) {
        let expected = SYSLOG_FACILITIES.join(", ");
        reader.reject(
            name,
            format!("unrecognized value: {facility}: expected one of {expected}"),
        );
        return None;
    }
    Some(facility)
}

/// A regular file under a prefix that the administrator allows, or standard output.
pub(super) fn maillog_file(
    reader: &mut Reader<'_>,
    stand_alone: bool,
    resolver: &dyn Resolver,
) -> Option<String> {
    let name = "maillog_file";
    let file = reader.string(name)?;
    let prefixes = reader.nonempty("maillog_file_prefixes")?;
    let allowed = Words::all(prefixes.as_bytes(), is_list_separator)
        .any(|prefix| file.as_bytes().starts_with(prefix));
    if !file.is_empty() && !allowed {
        let message = format!(
            "{name} value '{file}' does not match any prefix in maillog_file_prefixes: \
             expected one of {prefixes}"
        );
        reader.error(name, message);
        return None;
    }
    if !["", "/dev/stdout"].contains(&file.as_str()) {
        if let Err(problem) = resolver.check_log_file(Path::new(&file), stand_alone) {
            reader.reject(name, format!("{file}: {problem}"));
            return None;
        }
    }
    Some(file)
}

/// The format `journal` is also a destination, so no log file may be set with it.
pub(super) fn log_format(reader: &mut Reader<'_>, maillog_file: Option<&str>) -> Option<LogFormat> {
    let name = "log_format";
    let format = match reader.nonempty(name)?.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        "journal" => LogFormat::Journal,
        other => {
            let other = shown(other.as_bytes());
            let problem = format!("bad value: {other}: expected text, json or journal");
            reader.reject(name, problem);
            return None;
        }
    };
    if format == LogFormat::Journal && maillog_file.is_some_and(|file| !file.is_empty()) {
        let problem = "journal and maillog_file are two places: expected one of them";
        reader.reject(name, problem.to_owned());
        return None;
    }
    Some(format)
}

/// The mode, in octal, of a log file that the master creates. As in Postfix, a bad value is ignored
/// with a warning.
pub(super) fn maillog_file_permissions(reader: &mut Reader<'_>) -> Option<u32> {
    let name = "maillog_file_permissions";
    let value = reader.nonempty(name)?;
    let mode = match value.trim_start_matches('0') {
        "644" => 0o644,
        "640" => 0o640,
        "600" => 0o600,
        _ => {
            let message = format!(
                "ignoring bad permissions: {name} = {value}: expected 644, 640 or 600, using 600"
            );
            reader.warn(name, message);
            0o600
        }
    };
    Some(mode)
}
