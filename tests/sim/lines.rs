//! The service table's file and its edits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use master::config::{ChildLimits, Endpoint, Extra, Kind, Pool, Service, StartLimit, Wakeup};

use crate::happening::Edit;

/// The simulated endpoints: one for remote clients, one for local clients, one that passes
/// descriptors, and a FIFO.
const ENDPOINTS: [(Kind, &str, &str); 4] = [
    (Kind::Inet, "smtp", "25"),
    (Kind::Unix, "local", "private/local"),
    (Kind::Pass, "smtpd", "private/smtpd"),
    (Kind::Fifo, "qmgr", "public/qmgr"),
];

/// An endpoint's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Line {
    present: bool,
    renamed: bool,
    address: u8,
    max: u8,
    wakeup: u8,
    conditional: bool,
    throttle_time: u8,
    throttle_most: u8,
    crash_percent: u8,
    stop_timeout: u8,
    request_timeout: u8,
    start_limit: u8,
    preload: bool,
}

/// All lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lines {
    lines: [Line; ENDPOINTS.len()],
    pub kill_time: Duration,
}

impl Default for Lines {
    fn default() -> Self {
        let line = Line {
            present: false,
            renamed: false,
            address: 0,
            max: 2,
            wakeup: 0,
            conditional: false,
            throttle_time: 60,
            throttle_most: 0,
            crash_percent: 0,
            stop_timeout: 0,
            request_timeout: 0,
            start_limit: 0,
            preload: false,
        };
        Self {
            lines: [line; ENDPOINTS.len()],
            kill_time: Duration::from_secs(10),
        }
    }
}

impl Lines {
    /// Applies an edit; false if it changes nothing.
    pub fn edit(&mut self, endpoint: u8, edit: Edit) -> bool {
        let line = &mut self.lines[usize::from(endpoint) % ENDPOINTS.len()];
        let before = *line;
        match edit {
            Edit::Add => line.present = true,
            Edit::Remove => line.present = false,
            Edit::Rename => line.renamed = !line.renamed,
            Edit::Move(address) => line.address = address,
            Edit::Max(max) => line.max = max,
            Edit::Wakeup(seconds) => (line.wakeup, line.conditional) = (seconds, false),
            Edit::WakeupOnceUsed(seconds) => (line.wakeup, line.conditional) = (seconds, true),
            Edit::ThrottleTime(seconds) => line.throttle_time = seconds,
            Edit::ThrottleMost(seconds) => line.throttle_most = seconds,
            Edit::CrashPercent(percent) => line.crash_percent = percent,
            Edit::StopTimeout(seconds) => line.stop_timeout = seconds,
            Edit::RequestTimeout(seconds) => line.request_timeout = seconds,
            Edit::StartLimit(starts) => line.start_limit = starts,
            Edit::Preload(preload) => line.preload = preload,
        }
        *line != before
    }

    /// The services, as the parser would return them.
    pub fn services(&self) -> Vec<Arc<Service>> {
        let lines = self.lines.iter().zip(ENDPOINTS);
        let present = lines.filter(|(line, _)| line.present);
        present
            .map(|(line, endpoint)| Arc::new(service(line, endpoint)))
            .collect()
    }
}

fn service(line: &Line, (kind, name, canonical): (Kind, &str, &str)) -> Service {
    let every = Duration::from_secs(line.wakeup.into());
    let wakeup = Wakeup {
        every,
        conditional: line.conditional,
    };
    Service {
        name: if line.renamed { canonical } else { name }.into(),
        kind,
        canonical: canonical.into(),
        endpoint: match kind {
            Kind::Inet => Endpoint::Inet(vec![address(line.address)]),
            _ => Endpoint::Path(PathBuf::from(canonical)),
        },
        unprivileged: true,
        chroot: false,
        wakeup: (line.wakeup > 0).then_some(wakeup),
        max: line.max.into(),
        command: name.into(),
        path: name.into(),
        args: Vec::new(),
        backlog: 100,
        throttle_time: Duration::from_secs(line.throttle_time.into()),
        extra: Extra {
            pool: Pool {
                preload: line.preload,
                ..Pool::default()
            },
            limits: limits(line),
            ..Extra::default()
        }
        .boxed(),
        table: std::path::Path::new("master.cf").into(),
        line: 1,
    }
}

fn limits(line: &Line) -> ChildLimits {
    let set = |number: u8| (number > 0).then_some(number);
    let time = |number| set(number).map(|seconds| Duration::from_secs(seconds.into()));
    ChildLimits {
        // The parser accepts only ascending ranges.
        throttle_most: time(line.throttle_most.max(line.throttle_time))
            .filter(|_| line.throttle_most > 0),
        crash_percent: set(line.crash_percent).map(u32::from),
        stop_timeout: time(line.stop_timeout),
        request_timeout: time(line.request_timeout),
        start_limit: set(line.start_limit).map(|starts| StartLimit {
            starts: starts.into(),
            period: Duration::from_secs(10),
        }),
        capture_output: false,
        // These have a simulation of their own.
        max_uses: None,
        max_age: None,
        memory_recycle: None,
    }
}

/// The address for the canonical name: an interface may come or go, and the last one may be the
/// loopback interface.
fn address(number: u8) -> SocketAddr {
    let addresses = [[0, 0, 0, 0], [192, 0, 2, 1], [127, 0, 0, 1]];
    SocketAddr::from((addresses[usize::from(number) % addresses.len()], 25))
}

/// The identity of an endpoint's service.
pub fn identity(endpoint: u8) -> (Kind, &'static str) {
    let (kind, _, canonical) = ENDPOINTS[usize::from(endpoint) % ENDPOINTS.len()];
    (kind, canonical)
}
