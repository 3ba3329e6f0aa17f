//! Prepared status documents, for tests of their readers. Tests of other packages include this
//! file, too.

use master::status::{
    Child, Document, FORMAT, Failure, Reload, Service, State, Template, TemplateState,
};

/// The time of all these documents.
pub const NOW: f64 = 1_795_280_400.0;

/// A service with these numbers of children; a maximum of 0 is no limit.
pub fn service(place: u32, name: &str, busy: u32, available: u32, maximum: u32) -> Service {
    let children = (0..busy + available).map(|n| Child {
        pid: (10_000 + place * 1000 + n) as i32,
        generation: 1,
        state: if n < busy {
            State::Busy
        } else {
            State::Available
        },
        uses: n % 17 + 1,
        age: 4.5 + f64::from(n) * 7.25,
    });
    Service {
        settings: Default::default(),
        place,
        name: name.into(),
        kind: "unix".into(),
        endpoint: format!("private/{name}"),
        listeners: vec![format!("private/{name}")],
        program: format!("/usr/lib/postfix/sbin/{name}"),
        arguments: Vec::new(),
        unprivileged: true,
        chroot: false,
        accept: "shared".into(),
        wakeup: None,
        wakeup_next: None,
        total: busy + available,
        available,
        busy,
        starting: 0,
        maximum,
        peak: busy,
        peak_time: (busy > 0).then_some(NOW - 240.0),
        limit_reached: 0,
        listening: available == 0 && (maximum == 0 || busy < maximum),
        paused: false,
        stalled: false,
        throttled_until: None,
        throttle_next: None,
        stress_until: None,
        connections: u64::from(busy) * 137,
        started: u64::from(busy + available) * 8 + 1,
        ended: u64::from(busy + available) * 7,
        failed: 0,
        killed: 0,
        recent_clients: None,
        recent_crashes: None,
        backlog: Some(0),
        memory: None,
        processor_time: None,
        backlog_limit: 100,
        children: children.collect(),
        templates: Vec::new(),
        template_failures: 0,
        template_failure: None,
    }
}

/// The mail server on a port of all addresses.
fn smtp(busy: u32, available: u32, maximum: u32) -> Service {
    Service {
        kind: "inet".into(),
        endpoint: "[0.0.0.0]:25".into(),
        listeners: vec!["0.0.0.0:25".into(), "[::]:25".into()],
        program: "/usr/lib/postfix/sbin/smtpd".into(),
        ..service(0, "smtp", busy, available, maximum)
    }
}

/// A mail system on a quiet morning.
pub fn calm() -> Document {
    let queue_manager = Service {
        wakeup: Some(300.0),
        wakeup_next: Some(NOW + 120.0),
        ..service(3, "qmgr", 0, 1, 1)
    };
    Document {
        settings: Default::default(),
        log: "ok".into(),
        verbose: false,
        reloads: 0,
        format: FORMAT,
        version: "0.1.0".into(),
        pid: 4711,
        time: NOW,
        started: NOW - 3.0 * 86_400.0 - 4.0 * 3600.0,
        configuration: "/etc/postfix".into(),
        queue_directory: "/var/spool/postfix".into(),
        generation: 1,
        loaded: NOW - 3.0 * 86_400.0 - 4.0 * 3600.0,
        last_reload: None,
        upgrades: 0,
        last_upgrade: None,
        services: vec![
            smtp(3, 2, 100),
            service(1, "pickup", 0, 1, 1),
            service(2, "cleanup", 1, 3, 0),
            queue_manager,
            service(4, "bounce", 0, 0, 0),
            service(5, "local", 2, 1, 20),
            service(6, "policyd", 0, 1, 10),
        ],
    }
}

/// The same, with a service whose children are forked from a template.
pub fn preloaded() -> Document {
    let mut document = calm();
    let service = &mut document.services[6];
    service.settings.insert("preload".into(), "true".into());
    service.templates.push(Template {
        pid: 4242,
        state: TemplateState::Ready,
        age: 7200.0,
        forked: 12,
        due: Some(NOW + 3600.0),
        shared: Some(8_000_000),
        private: Some(64_000_000),
    });
    service.template_failures = 1;
    service.template_failure = Some(Failure {
        time: NOW - 90.0,
        reason: "killed by signal 9".into(),
    });
    document
}

/// The same under load, with one service near its limit.
pub fn loaded() -> Document {
    let mut document = calm();
    document.services[0] = smtp(73, 4, 100);
    document.services[2] = service(2, "cleanup", 41, 3, 0);
    document.services[5] = service(5, "local", 17, 2, 20);
    document
}

/// A service is at its process limit, and clients wait.
pub fn at_the_limit() -> Document {
    let mut document = loaded();
    let smtp = &mut document.services[0];
    *smtp = self::smtp(100, 0, 100);
    smtp.limit_reached = 12;
    smtp.backlog = Some(37);
    document
}

/// The same in stress mode.
pub fn stressed() -> Document {
    let mut document = at_the_limit();
    document.services[0].stress_until = Some(NOW + 871.0);
    document
}

/// The children of a service fail.
pub fn throttled() -> Document {
    let mut document = calm();
    let policyd = &mut document.services[6];
    *policyd = service(6, "policyd", 0, 0, 10);
    policyd.throttled_until = Some(NOW + 43.0);
    policyd.throttle_next = Some(120.0);
    policyd.failed = 5;
    policyd.recent_clients = Some(20);
    policyd.recent_crashes = Some(3);
    document
}

/// A reload that changed nothing.
pub fn failed_reload() -> Document {
    let mut document = calm();
    document.last_reload = Some(Reload {
        time: NOW - 61.0,
        succeeded: false,
        findings: vec![
            "error: /etc/postfix/master.cf: line 138: column 1: bad port: \"smtpp\": expected \
             1..65535, or a TCP service of known_tcp_ports or services(5)"
                .into(),
            "error: reload failed and changed nothing: the former configuration stays in force; \
             correct /etc/postfix and reload again"
                .into(),
        ],
    });
    document
}

/// The number of services of a large site.
pub fn crowd(services: u32) -> Document {
    let mut document = calm();
    let many = (0..services).map(|n| service(n, &format!("tenant{n}"), n % 23, n % 3, 25));
    document.services = many.collect();
    document
}

/// Valid names that a reader must escape.
pub fn hostile() -> Document {
    let mut document = failed_reload();
    let evil = "<img src=x onerror=document.title='pwned'>&amp;\u{202e}\u{1b}[31m";
    document.services[0].name = evil.into();
    document.services[0].endpoint = evil.into();
    document.services[0].arguments = vec![evil.into()];
    if let Some(reload) = &mut document.last_reload {
        reload.findings.push(evil.into());
    }
    document
}
