//! The status as metrics: in OpenMetrics' format, or in Prometheus' older text format for clients
//! that do not accept OpenMetrics.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use hyper::body::Bytes;
use master::status::{Document, Service, Template};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::shared::Shared;
use crate::watch::{Answer, MasterData};

/// A counter of a service: its name, its help and its value.
type Counter = (&'static str, &'static str, fn(&Service) -> u64);
/// A gauge of a service; its value may be unknown.
type Gauge = (&'static str, &'static str, fn(&Service) -> Option<f64>);
/// A label in addition to the service's labels.
type Label = (&'static str, &'static str);

/// The template that forks the children of a preloaded service.
fn template(service: &Service) -> Option<&Template> {
    service.templates.first()
}

const GAUGES: [Gauge; 18] = [
    ("limit", "The process limit; 0 is none", |s| {
        Some(s.maximum.into())
    }),
    (
        "busy_peak",
        "The most children that were busy at a time",
        |s| Some(s.peak.into()),
    ),
    (
        "listening",
        "Whether the master itself looks for clients, because no child does",
        |s| Some(flag(s.listening)),
    ),
    (
        "paused",
        "Whether an operator has paused the service",
        |s| Some(flag(s.paused)),
    ),
    (
        "throttled",
        "Whether no child is started for a while, after failures",
        |s| Some(flag(s.throttled_until.is_some())),
    ),
    (
        "throttle_next_seconds",
        "How long the next failure throttles it, if failures extend the time",
        |s| s.throttle_next,
    ),
    (
        "recent_clients",
        "The number of recent clients that crash_percent counts",
        |s| s.recent_clients.map(f64::from),
    ),
    (
        "recent_crashes",
        "Recent clients whose child ended abnormally",
        |s| s.recent_crashes.map(f64::from),
    ),
    ("stressed", "Whether children are told of stress", |s| {
        Some(flag(s.stress_until.is_some()))
    }),
    (
        "backlog",
        "Clients that wait in the listeners' queues",
        |s| s.backlog.map(f64::from),
    ),
    (
        "memory_bytes",
        "Memory that the processes of its control group use",
        |s| s.memory.map(|bytes| bytes as f64),
    ),
    (
        "processor_seconds",
        "Processor time that the processes of its control group have used since it was made",
        |s| s.processor_time,
    ),
    (
        "backlog_limit",
        "How many clients can wait at each listener",
        |s| Some(s.backlog_limit.into()),
    ),
    (
        "wakeup_time_seconds",
        "When the next wake-up is due, in seconds since 1970",
        |s| s.wakeup_next,
    ),
    (
        "template_ready",
        "Whether the template of a preloaded service has loaded",
        |s| s.is_preloaded().then(|| flag(!s.is_loading())),
    ),
    (
        "template_age_seconds",
        "The time since the start of the template",
        |s| Some(template(s)?.age),
    ),
    (
        "template_due_time_seconds",
        "When the template is to be replaced because of its age or its uses, in seconds since 1970",
        |s| template(s)?.due,
    ),
    (
        "template_failure_time_seconds",
        "When a template failed last, in seconds since 1970",
        |s| Some(s.template_failure.as_ref()?.time),
    ),
];

const COUNTERS: [Counter; 3] = [
    (
        "limit_reached",
        "How often all processes that the limit allows were in use",
        |s| s.limit_reached,
    ),
    ("connections", "Clients that children have reported", |s| {
        s.connections
    }),
    ("children_started", "Children that were started", |s| {
        s.started
    }),
];

/// The text formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    Classic,
}

/// A document's metrics in both formats. They are written once for all clients, when the first of
/// them asks.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    open_metrics: OnceLock<Bytes>,
    classic: OnceLock<Bytes>,
}

/// The end of a text in OpenMetrics' format.
const END: &str = "# EOF\n";

/// All metrics.
///
/// # Errors
/// None in practice: writing to a string does not fail.
pub fn metrics(known: &MasterData, format: Format) -> Result<Shared, fmt::Error> {
    let current = known.current().ok();
    // The age differs at each request.
    let head = encoded(Metrics::Head {
        up: current.is_some(),
        age: known.last().map(|(_, age)| age.as_secs_f64()),
    })?;
    let head = head.strip_suffix(END).unwrap_or(&head).to_owned();
    let rest = match (current, format) {
        (Some(answer), _) => rendered(answer, format)?,
        (None, Format::OpenMetrics) => END.into(),
        (None, Format::Classic) => Bytes::new(),
    };
    Ok(Shared::new([head.into(), rest]))
}

fn rendered(answer: &Answer, format: Format) -> Result<Bytes, fmt::Error> {
    let Rendered {
        open_metrics,
        classic: older,
    } = &answer.metrics;
    let place = match format {
        Format::OpenMetrics => open_metrics,
        Format::Classic => older,
    };
    if let Some(text) = place.get() {
        return Ok(text.clone());
    }
    let text = encoded(Metrics::Document(Arc::clone(&answer.document)))?;
    let text = match format {
        Format::OpenMetrics => text,
        Format::Classic => classic(&text),
    };
    Ok(place.get_or_init(|| text.into()).clone())
}

/// Metrics in OpenMetrics' text format.
fn encoded(metrics: Metrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(metrics));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Converts to Prometheus' text format, in which a counter is described by its full name.
fn classic(open_metrics: &str) -> String {
    let counters: BTreeSet<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what), Some(name), Some(rest)) if counters.contains(name) => {
                text += &format!("# {what} {name}_total {rest}\n");
            }
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

#[derive(Debug)]
enum Metrics {
    /// Whether the master answers, and the age of its last answer.
    Head {
        up: bool,
        age: Option<f64>,
    },
    Document(Arc<Document>),
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        match self {
            Self::Head { up, age } => {
                let mut single = |name, help, value| single(&mut encoder, name, help, value);
                single("master_up", "Whether the master answers", flag(*up))?;
                let help = "The age of the master's last answer";
                age.map_or(Ok(()), |age| single("master_answer_age_seconds", help, age))
            }
            Self::Document(document) => {
                encode_master(document, &mut encoder)?;
                encode_services(&document.services, &mut encoder)
            }
        }
    }
}

fn encode_master(document: &Document, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let gauge = ConstGauge::new(1.0);
    let help = "The master's version and configuration";
    let labels = [
        ("version", document.version.as_str()),
        ("configuration", document.configuration.as_str()),
    ];
    let kind = gauge.metric_type();
    let mut metric = encoder.encode_descriptor("master_build_info", help, None, kind)?;
    gauge.encode(metric.encode_family(&labels)?)?;
    let mut single = |name, help, value| single(encoder, name, help, value);
    single(
        "master_start_time_seconds",
        "When the master was started, in seconds since 1970",
        document.started,
    )?;
    single(
        "master_configuration_generation",
        "How many configurations have been in force",
        document.generation.into(),
    )?;
    single(
        "master_configuration_load_time_seconds",
        "When the present configuration came into force, in seconds since 1970",
        document.loaded,
    )?;
    single(
        "master_log_lines_lost",
        "The last log lines that were lost; 0 when logging works",
        lines_lost(&document.log),
    )?;
    let Some(reload) = &document.last_reload else {
        return Ok(());
    };
    single(
        "master_last_reload_successful",
        "Whether the last reload succeeded",
        flag(reload.succeeded),
    )?;
    single(
        "master_last_reload_time_seconds",
        "When the last reload was, in seconds since 1970",
        reload.time,
    )
}

/// The number in `lost N lines: reason`.
fn lines_lost(log: &str) -> f64 {
    let words = log
        .strip_prefix("lost ")
        .and_then(|rest| rest.split(' ').next());
    words.and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn encode_services(services: &[Service], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let name = |of: &str| format!("master_service_{of}");
    let help = "Children that are busy, that wait for clients, and that are not ready yet";
    gauges(services, &name("children"), help, encoder, |s| {
        let states = [
            ("busy", s.busy),
            ("available", s.available),
            ("starting", s.starting),
        ];
        let labelled = states.map(|(state, n)| (Some(("state", state)), n.into()));
        labelled.to_vec()
    })?;
    for (of, help, value) in GAUGES {
        gauges(services, &name(of), help, encoder, |s| {
            value(s).map(|value| (None, value)).into_iter().collect()
        })?;
    }
    let help = "Resident memory of the template: pages of files, and its own";
    gauges(
        services,
        &name("template_memory_bytes"),
        help,
        encoder,
        |s| {
            let memory = |template: &Template| {
                let kinds = [("shared", template.shared), ("private", template.private)];
                kinds.map(|(kind, bytes)| bytes.map(|bytes| (Some(("kind", kind)), bytes as f64)))
            };
            template(s)
                .map(memory)
                .into_iter()
                .flatten()
                .flatten()
                .collect()
        },
    )?;
    let help = "Children that the template has forked";
    gauges(
        services,
        &name("template_children_forked"),
        help,
        encoder,
        |s| {
            template(s)
                .map(|template| (None, template.forked.into()))
                .into_iter()
                .collect()
        },
    )?;
    for (of, help, value) in COUNTERS {
        counters(services, &name(of), help, encoder, |s| {
            vec![(None, value(s))]
        })?;
    }
    let help = "Templates that ended, could not load, or did not fork as they should";
    counters(services, &name("template_failures"), help, encoder, |s| {
        let failures = s.is_preloaded().then(|| s.template_failures.into());
        failures.map(|n| (None, n)).into_iter().collect()
    })?;
    let help = "Children that ended: with status 0, with another, by a signal";
    counters(services, &name("children_ended"), help, encoder, |s| {
        let ends = [
            ("success", s.ended),
            ("failure", s.failed),
            ("signal", s.killed),
        ];
        ends.map(|(end, n)| (Some(("end", end)), n)).to_vec()
    })
}

fn single(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn gauges(
    services: &[Service],
    name: &str,
    help: &str,
    encoder: &mut DescriptorEncoder<'_>,
    values: impl Fn(&Service) -> Vec<(Option<Label>, f64)>,
) -> fmt::Result {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for service in services {
        for (label, value) in values(service) {
            let labels = labels(service, label);
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn counters(
    services: &[Service],
    name: &str,
    help: &str,
    encoder: &mut DescriptorEncoder<'_>,
    values: impl Fn(&Service) -> Vec<(Option<Label>, u64)>,
) -> fmt::Result {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for service in services {
        for (label, value) in values(service) {
            let labels = labels(service, label);
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn labels(service: &Service, more: Option<Label>) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("service", service.name.clone()),
        ("type", service.kind.clone()),
        ("endpoint", service.endpoint.clone()),
    ];
    labels.extend(more.map(|(name, value)| (name, value.to_owned())));
    labels
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{calm, failed_reload, preloaded, throttled};
    use crate::watch::testing::master_data;
    use http_body_util::BodyExt;
    use tokio::runtime::Builder;

    fn of(document: Document) -> String {
        text(&master_data([Ok(document)]), Format::OpenMetrics)
    }

    fn text(known: &MasterData, format: Format) -> String {
        let metrics = metrics(known, format).expect("text");
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let text = runtime.block_on(metrics.collect()).expect("no error");
        String::from_utf8(text.to_bytes().into()).expect("text")
    }

    #[test]
    fn clients_share_the_metrics_of_a_document() {
        let known = master_data([Ok(calm())]);
        for format in [Format::OpenMetrics, Format::Classic] {
            let rest = || {
                let answer = known.current().expect("an answer");
                rendered(answer, format).expect("text").as_ptr()
            };
            assert_eq!(rest(), rest());
            assert_has(&text(&known, format), "master_up 1.0");
        }
    }

    #[track_caller]
    fn assert_has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }

    #[test]
    fn each_service_has_its_numbers() {
        let text = of(calm());
        let labels = r#"service="smtp",type="inet",endpoint="[0.0.0.0]:25""#;
        assert_has(&text, "# TYPE master_service_children gauge");
        let busy = format!("master_service_children{{{labels},state=\"busy\"}} 3.0");
        assert_has(&text, &busy);
        let limit = format!("master_service_limit{{{labels}}} 100.0");
        assert_has(&text, &limit);
        let started = format!("master_service_children_started_total{{{labels}}} 41");
        assert_has(&text, &started);
        assert_has(&text, "# TYPE master_service_children_started counter");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_an_operator_wants_to_be_woken_up_for_is_a_metric() {
        let text = of(throttled());
        let labels = r#"service="policyd",type="unix",endpoint="private/policyd""#;
        for line in [
            format!("master_service_throttled{{{labels}}} 1.0"),
            format!("master_service_throttle_next_seconds{{{labels}}} 120.0"),
            format!("master_service_recent_clients{{{labels}}} 20.0"),
            format!("master_service_recent_crashes{{{labels}}} 3.0"),
        ] {
            assert_has(&text, &line);
        }
        assert!(!of(calm()).contains("recent_clients{"));
        assert_has(&of(failed_reload()), "master_last_reload_successful 0.0");
        assert!(!of(calm()).contains("master_last_reload"));
    }

    #[test]
    fn a_preloaded_service_has_the_numbers_of_its_template() {
        let text = of(preloaded());
        let labels = r#"service="policyd",type="unix",endpoint="private/policyd""#;
        for line in [
            format!("master_service_template_ready{{{labels}}} 1.0"),
            format!("master_service_template_age_seconds{{{labels}}} 7200.0"),
            format!("master_service_template_children_forked{{{labels}}} 12.0"),
            format!("master_service_template_memory_bytes{{{labels},kind=\"shared\"}} 8000000.0"),
            format!("master_service_template_memory_bytes{{{labels},kind=\"private\"}} 64000000.0"),
            format!("master_service_template_failures_total{{{labels}}} 1"),
        ] {
            assert_has(&text, &line);
        }
        for name in ["template_due_time_seconds", "template_failure_time_seconds"] {
            assert!(
                text.contains(&format!("master_service_{name}{{{labels}}}")),
                "{text}"
            );
        }
        assert!(!of(calm()).contains("template_ready{"));
        assert!(!of(calm()).contains("template_failures_total{"));
        let mut loading = preloaded();
        loading.services[6].templates.clear();
        assert_has(
            &of(loading),
            &format!("master_service_template_ready{{{labels}}} 0.0"),
        );
    }

    #[test]
    fn lost_log_lines_are_a_number() {
        assert_has(&of(calm()), "master_log_lines_lost 0.0");
        for (log, number) in [("lost 1 line: full", "1.0"), ("lost 70 lines: x", "70.0")] {
            let mut document = calm();
            document.log = log.into();
            assert_has(&of(document), &format!("master_log_lines_lost {number}"));
        }
    }

    #[test]
    fn of_a_master_that_does_not_answer_no_number_is_told_twice() {
        let known = master_data([Ok(calm()), Err("gone".into())]);
        let text = text(&known, Format::OpenMetrics);
        assert_has(&text, "master_up 0.0");
        assert!(!text.contains("master_service"), "{text}");
    }

    #[test]
    fn a_name_cannot_break_out_of_its_label() {
        let mut document = calm();
        document.services[0].name = "a\"} 1\nx{\\".into();
        assert!(of(document).contains(r#"service="a\"} 1\nx{\\","#));
    }

    #[test]
    fn the_older_text_describes_counters_by_their_full_names() {
        let text = text(&master_data([Ok(calm())]), Format::Classic);
        assert_has(&text, "# TYPE master_service_connections_total counter");
        assert!(text.contains("# HELP master_service_connections_total Clients"));
        assert_has(&text, "# TYPE master_service_limit gauge");
        assert!(!text.contains("EOF"));
    }
}
