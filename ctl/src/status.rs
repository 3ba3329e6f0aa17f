//! `masterctl status`: a table of all services, or one service with its children.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use master::status::{Child, Document, Service, State, Template, TemplateState};

use crate::arguments::Arguments;
use crate::connection::{MasterClient, StatusReply};
use crate::names::find;
use crate::process::usage;
use crate::table::{self, Column};
use crate::words::{counted, cut, memory, number, time};

/// Shows the master's status document.
///
/// # Errors
/// The master does not answer, or the output fails.
pub fn run(
    arguments: &Arguments,
    name: Option<&str>,
    json: bool,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let StatusReply { document, text, .. } = MasterClient::new(arguments)?.status()?;
    match name {
        _ if json => writeln!(out, "{text}")?,
        None => show_all(&document, out)?,
        Some(name) => show_one(&document, find(&document, name)?, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The columns of the table of services. They fit into 80 characters.
const SERVICES: [Column; 8] = [
    Column::left(0, "SERVICE", 27),
    Column::right(1, "BUSY", 5),
    Column::right(1, "IDLE", 5),
    Column::right(1, "MAX", 5),
    Column::right(1, "PEAK", 5),
    Column::right(1, "CLIENTS", 8),
    Column::right(1, "WAIT", 5),
    Column::left(2, "STATE", 0),
];
/// The columns of the table of a service's children.
const CHILDREN: [Column; 6] = [
    Column::right(2, "PID", 8),
    Column::left(2, "STATE", 9),
    Column::right(1, "CLIENTS", 8),
    Column::right(1, "AGE", 10),
    Column::right(1, "MEMORY", 8),
    Column::right(1, "CPU", 10),
];
/// Maximum width of the last column in the table of services, in characters.
const STATES: usize = 12;

/// Shows all services, in 80 characters per line.
fn show_all(document: &Document, out: &mut impl Write) -> io::Result<()> {
    let Document {
        version, pid, time, ..
    } = document;
    let ago = |at: f64| crate::words::time(time - at);
    let (services, up) = (document.services.len(), ago(document.started));
    let services = counted(services, "service", "services");
    writeln!(out, "master {version}: pid {pid}, up {up}, {services}")?;
    let configuration = cut(&document.configuration, 50);
    writeln!(out, "{configuration}: loaded {} ago", ago(document.loaded))?;
    if let Some(upgrade) = &document.last_upgrade {
        let times = match document.upgrades {
            1 => "once".to_owned(),
            n => format!("{n} times, last"),
        };
        let (from, ago) = (cut(&upgrade.from, 20), ago(upgrade.time));
        writeln!(out, "upgraded {times} {ago} ago from {from}")?;
    }
    if let Some(reload) = document.last_reload.as_ref().filter(|r| !r.succeeded) {
        writeln!(
            out,
            "the last reload, {} ago, changed nothing:",
            ago(reload.time)
        )?;
        for finding in &reload.findings {
            writeln!(out, "  {}", cut(finding, usize::MAX))?;
        }
    }
    if document.log.starts_with("lost") {
        writeln!(out, "log: {}", cut(&document.log, usize::MAX))?;
    }
    let rows = document.services.iter().map(|s| row(document, s));
    writeln!(out, "\n{}", table::lines(&SERVICES, rows))
}

fn row(document: &Document, service: &Service) -> [String; SERVICES.len()] {
    let name = format!("{} {}", service.name, service.kind);
    let few = |n: u32| number(n.into(), 5);
    let maximum = match service.maximum {
        0 => "-".to_owned(),
        n => few(n),
    };
    [
        cut(&name, 27),
        few(service.busy),
        few(service.available),
        maximum,
        few(service.peak),
        number(service.connections, 8),
        service.backlog.map_or_else(|| "-".to_owned(), few),
        states(document, service, false),
    ]
}

/// The unusual states of a service: `all`, or as many as fit into the last column.
fn states(document: &Document, service: &Service, all: bool) -> String {
    let left = |until: Option<f64>| until.map(|until| time(until - document.time));
    let (throttled, stress) = (left(service.throttled_until), left(service.stress_until));
    let states = [
        service.paused.then(|| "paused".to_owned()),
        throttled.map(|left| format!("throttled for {left}")),
        service.is_full().then(|| "full".to_owned()),
        service.stalled.then(|| "stalled".to_owned()),
        stress.map(|left| format!("stress for {left}")),
        (service.starting > 0).then(|| "starting".to_owned()),
        service.is_loading().then(|| "loading".to_owned()),
    ]
    .into_iter()
    .flatten();
    if all {
        return states.collect::<Vec<_>>().join(", ");
    }
    let mut words = states.filter_map(|state| Some(state.split(' ').next()?.to_owned()));
    let first = words.next().unwrap_or_default();
    words.fold(first, |shown, word| {
        let longer = format!("{shown}, {word}");
        if longer.len() <= STATES {
            longer
        } else {
            shown
        }
    })
}

fn show_one(document: &Document, service: &Service, out: &mut impl Write) -> io::Result<()> {
    let Service {
        name,
        kind,
        endpoint,
        accept,
        ..
    } = service;
    writeln!(out, "{name} {kind} ({endpoint}), accept {accept}")?;
    let mut line = |name: &str, text: String| {
        if text.is_empty() {
            return Ok(());
        }
        writeln!(out, "  {name:<12} {}", cut(&text, usize::MAX))
    };
    line("state", states(document, service, true))?;
    line("listens on", service.listeners.join(" "))?;
    let words = std::iter::once(&service.program).chain(&service.arguments);
    line("runs", words.cloned().collect::<Vec<_>>().join(" "))?;
    line("settings", settings(service))?;
    line("children", children(service))?;
    for (name, of) in ["template", "next"].into_iter().zip(&service.templates) {
        line(name, template(document, of))?;
    }
    line("failed", template_failures(document, service))?;
    line("peak", peak(document, service))?;
    line("clients", clients(service))?;
    line("uses", uses(service))?;
    line("ended", ends(service))?;
    line("crashes", crashes(service))?;
    line("back-off", back_off(service))?;
    line("wake-up", wakeup(document, service))?;
    if service.children.is_empty() {
        return Ok(());
    }
    let rows = service.children.iter().map(child_row);
    writeln!(out, "\n{}", table::lines(&CHILDREN, rows))
}

fn settings(service: &Service) -> String {
    let yes = |flag: bool, name: &str| flag.then(|| name.to_owned());
    let flags = [
        yes(service.unprivileged, "unprivileged"),
        yes(service.chroot, "chroot"),
    ];
    let others = service
        .settings
        .iter()
        .map(|(name, value)| format!("{name} {value}"));
    let all: Vec<_> = flags.into_iter().flatten().chain(others).collect();
    all.join(", ")
}

fn children(service: &Service) -> String {
    let Service {
        total,
        busy,
        available,
        starting,
        maximum,
        ..
    } = service;
    let limit = match maximum {
        0 => "no limit".to_owned(),
        n => format!("limit {n}"),
    };
    format!("{total}: {busy} busy, {available} idle, {starting} starting; {limit}")
}

fn template(document: &Document, template: &Template) -> String {
    let state = match template.state {
        TemplateState::Loading => "loading",
        TemplateState::Ready => "ready",
        TemplateState::Forking => "forking",
        TemplateState::Ending => "ending",
    };
    let (pid, age) = (template.pid, time(template.age));
    let forked = counted(template.forked as usize, "child", "children");
    let due = template.due.map(|due| match due - document.time {
        left if left > 0.0 => format!(", to be replaced in {}", time(left)),
        late => format!(", to be replaced since {}", time(-late)),
    });
    let used = template.shared.zip(template.private);
    let used = used.map(|(shared, private)| {
        let (shared, private) = (memory(shared), memory(private));
        format!("; memory {shared} shared, {private} private")
    });
    let (due, used) = (due.unwrap_or_default(), used.unwrap_or_default());
    format!("pid {pid}, {state}, {age} old, has forked {forked}{due}{used}")
}

fn template_failures(document: &Document, service: &Service) -> String {
    service
        .template_failure
        .as_ref()
        .map_or_else(String::new, |last| {
            let failures = counted(service.template_failures as usize, "template", "templates");
            let ago = time(document.time - last.time);
            format!("{failures}, the last {ago} ago: {}", last.reason)
        })
}

fn peak(document: &Document, service: &Service) -> String {
    let reached = counted(service.limit_reached as usize, "time", "times");
    let limit = match service.maximum {
        0 => String::new(),
        _ => format!("; limit reached {reached}"),
    };
    match service.peak_time {
        Some(at) => {
            let ago = time(document.time - at);
            format!("{} busy, {ago} ago{limit}", service.peak)
        }
        None => String::new(),
    }
}

fn clients(service: &Service) -> String {
    let waiting = service.backlog.map(|n| format!(", {n} waiting"));
    let (reported, waiting) = (service.connections, waiting.unwrap_or_default());
    format!("{reported} reported{waiting}")
}

/// What its control group uses, if it has one.
fn uses(service: &Service) -> String {
    let memory = service
        .memory
        .map(|bytes| format!("{} KB of memory", bytes / 1024));
    let processor = service.processor_time;
    let processor = processor.map(|time| format!("{time:.1} s of processor time"));
    let all: Vec<_> = memory.into_iter().chain(processor).collect();
    all.join(", ")
}

fn ends(service: &Service) -> String {
    let Service {
        started,
        ended,
        failed,
        killed,
        ..
    } = service;
    format!("{ended} well, {failed} with an error, {killed} by a signal, of {started} started")
}

fn crashes(service: &Service) -> String {
    match (service.recent_crashes, service.recent_clients) {
        (Some(crashes), Some(clients)) => {
            let clients = counted(clients as usize, "client", "clients");
            format!("children ended abnormally with {crashes} of the last {clients}")
        }
        _ => String::new(),
    }
}

fn back_off(service: &Service) -> String {
    let next = service.throttle_next.map(time);
    next.map_or_else(String::new, |next| format!("{next} after the next failure"))
}

fn wakeup(document: &Document, service: &Service) -> String {
    let next = service.wakeup_next.map(|at| time(at - document.time));
    match (service.wakeup, next) {
        (Some(every), Some(next)) => format!("every {}, next in {next}", time(every)),
        (Some(every), None) => format!("every {}, once it has been used", time(every)),
        (None, _) => String::new(),
    }
}

fn child_row(child: &Child) -> [String; CHILDREN.len()] {
    let state = match child.state {
        State::Starting => "starting",
        State::Available => "idle",
        State::Busy => "busy",
        State::Leaving => "leaving",
    };
    let usage = usage(child.pid);
    let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        child.pid.to_string(),
        state.to_owned(),
        child.uses.to_string(),
        time(child.age),
        shown(usage.map(|usage| memory(usage.memory))),
        shown(usage.map(|usage| format!("{:.2} s", usage.processor))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::document;
    use master::status::{Failure, Reload, Upgrade};

    fn shown(show: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        show(&mut out).expect("a vector takes all");
        String::from_utf8(out).expect("text")
    }

    /// A document whose numbers have their maximum width.
    fn wide() -> Document {
        let long = "a".repeat(90);
        let table = format!("{long} unix n - - 60 - a\n10.0.0.1:25 inet n - - - 9 a\n");
        let mut document = document(&table);
        document.configuration = format!("/etc/{long}");
        for service in &mut document.services {
            service.busy = u32::MAX;
            service.available = u32::MAX;
            service.peak = u32::MAX;
            service.connections = u64::MAX;
            service.backlog = Some(u32::MAX);
            service.throttled_until = Some(f64::from(u32::MAX));
            service.stress_until = Some(f64::from(u32::MAX));
        }
        document
    }

    #[test]
    fn the_table_fits_80_columns_whatever_is_in_it() {
        let text = shown(|out| show_all(&wide(), out));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line:?}");
        }
        assert!(text.contains("throttled"), "{text}");
    }

    #[test]
    fn upgrades_are_shown() {
        let mut document = document("a unix n - - - 1 a\n");
        assert!(!shown(|out| show_all(&document, out)).contains("upgraded"));
        document.upgrades = 1;
        document.last_upgrade = Some(Upgrade {
            time: document.time - 5.0,
            from: "0.1.9".into(),
        });
        let text = shown(|out| show_all(&document, out));
        assert!(
            text.contains("\nupgraded once 5 s ago from 0.1.9\n"),
            "{text}"
        );
        document.upgrades = 3;
        let text = shown(|out| show_all(&document, out));
        assert!(
            text.contains("\nupgraded 3 times, last 5 s ago from 0.1.9\n"),
            "{text}"
        );
    }

    #[test]
    fn a_table_shows_who_is_busy_and_what_is_out_of_the_ordinary() {
        let table = "smtp inet n - - - 100 smtpd\na unix - - - - 0 a\nb unix - - - - 1 b\n";
        let mut document = document(table);
        document.services[0].busy = 100;
        document.services[0].stress_until = Some(document.time + 60.0);
        document.services[1].paused = true;
        document.services[2].busy = 1;
        let text = shown(|out| show_all(&document, out));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "master 0.1.0: pid 4711, up 2 h 46 min, 3 services",
                "/etc/services: loaded 2 h 46 min ago",
                "",
                "SERVICE                      BUSY  IDLE   MAX  PEAK  CLIENTS  WAIT  STATE",
                "smtp inet                     100     0   100     0        0     -  full, stress",
                "a unix                          0     0     -     0        0     -  paused",
                "b unix                          1     0     1     0        0     -",
            ]
        );
    }

    #[test]
    fn a_reload_that_failed_is_shown_with_its_reasons() {
        let mut document = document("a unix - - - - - a\n");
        document.last_reload = Some(Reload {
            time: document.time - 5.0,
            succeeded: false,
            findings: vec!["error: master.cf: line 1: no".to_owned()],
        });
        let text = shown(|out| show_all(&document, out));
        let expected =
            "the last reload, 5 s ago, changed nothing:\n  error: master.cf: line 1: no\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn one_service_is_shown_with_all_that_is_known() {
        let mut document = document("a unix - - - 60 5 a -x\n");
        let own = std::process::id() as i32;
        let service = &mut document.services[0];
        service.wakeup_next = Some(document.time + 20.0);
        service.peak = 2;
        service.peak_time = Some(document.time - 60.0);
        service.throttled_until = Some(document.time + 30.0);
        service.throttle_next = Some(60.0);
        (service.recent_crashes, service.recent_clients) = (Some(1), Some(20));
        for (pid, state) in [(own, State::Busy), (i32::MAX, State::Leaving)] {
            service.children.push(Child {
                pid,
                generation: 1,
                state,
                uses: 3,
                age: 61.0,
            });
        }
        let text = shown(|out| show_one(&document, &document.services[0], out));
        for expected in [
            "a unix (private/a), accept shared\n",
            "state        throttled for 30 s\n",
            "runs         /usr/libexec/a -x\n",
            "peak         2 busy, 1 min ago; limit reached 0 times\n",
            "crashes      children ended abnormally with 1 of the last 20 clients\n",
            "back-off     1 min after the next failure\n",
            "wake-up      every 1 min, next in 20 s\n",
            " busy             3  1 min 1 s",
            " leaving          3  1 min 1 s        -          -\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
        assert!(text.contains(" M "), "its memory: {text}");
    }

    #[test]
    fn the_templates_of_a_preloaded_service_are_shown() {
        let mut document = document("a unix - - - - 5 a\n");
        let time = document.time;
        let service = &mut document.services[0];
        service.settings.insert("preload".into(), "true".into());
        assert_eq!(states(&document, &document.services[0], true), "loading");
        let service = &mut document.services[0];
        for (pid, state) in [(7, TemplateState::Ready), (8, TemplateState::Loading)] {
            service.templates.push(Template {
                pid,
                state,
                age: 61.0,
                forked: 12 * u32::from(pid == 7),
                due: (pid == 7).then_some(time - 5.0),
                shared: Some(3 << 20),
                private: Some(40 << 20),
            });
        }
        service.template_failures = 2;
        service.template_failure = Some(Failure {
            time: time - 30.0,
            reason: "exit status 3".into(),
        });
        let text = shown(|out| show_one(&document, &document.services[0], out));
        for expected in [
            "  template     pid 7, ready, 1 min 1 s old, has forked 12 children, to be replaced \
             since 5 s; memory 3 M shared, 40 M private\n",
            "  next         pid 8, loading, 1 min 1 s old, has forked 0 children; memory",
            "  failed       2 templates, the last 30 s ago: exit status 3\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in {text}");
        }
        assert!(!text.contains("  state"), "{text}");
    }
}
