//! The web site: its paths, and limits on requests.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use services::Log;
use services::multi::Client;
use tokio::time::timeout;

use crate::host::Hosts;
use crate::metrics::{Format, metrics};
use crate::ready::{Rules, problems};
use crate::shared::Shared;
use crate::view;
use crate::watch::Watch;

const HTML: &str = include_str!("page/index.html");
const CSS: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// Maximum time for a client to send its request. A connected client delays the end of this process
/// after a reload.
const REQUEST_WITHIN: Duration = Duration::from_secs(3);
/// Maximum size of the request line and the headers, in bytes; larger requests are refused.
const REQUEST_MAX: usize = 16 * 1024;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Headers of every answer. The page may load its own style and script and nothing else; other
/// sites may not frame it; browsers may not guess types, and may not reuse an answer after two
/// seconds.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

type Answer = Response<Shared>;

/// The site's content and settings.
#[derive(Debug)]
pub struct Site {
    watch: Watch,
    hosts: Hosts,
    rules: Rules,
    log: Log,
}

impl Site {
    pub fn new(watch: Watch, hosts: Hosts, rules: Rules, log: Log) -> Self {
        Self {
            watch,
            hosts,
            rules,
            log,
        }
    }

    /// Answers one request of a client, within `limit`.
    ///
    /// There is one request per connection, so that idle clients do not block others.
    pub async fn serve(self: Arc<Self>, client: Client, limit: Duration) -> io::Result<()> {
        let peer = client.peer().clone();
        let answer = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            // A client that has closed its sending direction still expects the answer.
            .half_close(true)
            .timer(TokioTimer::new())
            .header_read_timeout(limit.min(REQUEST_WITHIN))
            .max_buf_size(REQUEST_MAX)
            .serve_connection(TokioIo::new(client), answer);
        match timeout(limit, pin!(connection)).await {
            Ok(Ok(())) => {}
            // A wake-up, a port scan, or a closed connection: none of these needs attention.
            Ok(Err(error)) => self.log.detail(format!("{peer}: {error}")),
            Err(_) => self.log.detail(format!("{peer}: too slow")),
        }
        Ok(())
    }

    fn answer(&self, request: &Request<impl Sized>) -> Answer {
        match self.hosts.check(request) {
            Ok(()) => {}
            Err(status @ StatusCode::MISDIRECTED_REQUEST) => {
                let body = "this server does not have the name in the header Host: to allow it, add \
                            it to statusd_host_names, see statusd(8)\n";
                return text(status, body.into());
            }
            Err(status) => return text(status, "one header Host is expected\n".into()),
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".into());
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, allowed);
            return answer;
        }
        match request.uri().path() {
            "/" => page("text/html; charset=utf-8", HTML),
            "/page.css" => page("text/css; charset=utf-8", CSS),
            "/page.js" => page("text/javascript; charset=utf-8", SCRIPT),
            "/view.json" => self.view(since(request)),
            "/status.json" => self.status(),
            "/metrics" => self.metrics(request.headers()),
            "/healthz" => text(StatusCode::OK, "statusd answers\n".into()),
            "/readyz" => self.readiness(),
            _ => text(StatusCode::NOT_FOUND, "nothing is here\n".into()),
        }
    }

    fn view(&self, known: u64) -> Answer {
        match view::view(known, &mut self.watch.known()) {
            Ok(view) => ok(JSON, view),
            Err(error) => self.cannot_answer(&error),
        }
    }

    /// The status document, as the master sent it.
    fn status(&self) -> Answer {
        match self.watch.known().current() {
            Ok(answer) => ok(JSON, answer.text.clone()),
            Err(why) => {
                let body = serde_json::json!({ "problem": why }).to_string();
                finish(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
            }
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        let mut accepted = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let is_open = accepted.any(|value| value.contains("application/openmetrics-text"));
        let (format, kind) = match is_open {
            true => (Format::OpenMetrics, OPEN_METRICS),
            false => (Format::Classic, CLASSIC_METRICS),
        };
        match metrics(&self.watch.known(), format) {
            Ok(metrics) => ok(kind, metrics),
            Err(error) => self.cannot_answer(&error),
        }
    }

    /// The answer when the data cannot be serialized, which is a bug in this program.
    fn cannot_answer(&self, error: &dyn Display) -> Answer {
        self.log.error(format!("cannot answer: {error}"));
        text(StatusCode::INTERNAL_SERVER_ERROR, "see the log\n".into())
    }

    fn readiness(&self) -> Answer {
        let problems = problems(&self.watch.known(), self.rules);
        if problems.is_empty() {
            return text(StatusCode::OK, "ready\n".into());
        }
        let body = format!("not ready\n{}\n", problems.join("\n"));
        text(StatusCode::SERVICE_UNAVAILABLE, body)
    }
}

/// The number of samples that the page already has: `?since=N`.
fn since(request: &Request<impl Sized>) -> u64 {
    let query = request.uri().query().unwrap_or("");
    let number = query.strip_prefix("since=").map(str::parse);
    number.and_then(Result::ok).unwrap_or(0)
}

fn page(kind: &'static str, body: &'static str) -> Answer {
    ok(kind, body)
}

fn ok(kind: &'static str, body: impl Into<Shared>) -> Answer {
    finish(StatusCode::OK, kind, body)
}

fn text(status: StatusCode, body: String) -> Answer {
    finish(status, TEXT, body)
}

fn finish(status: StatusCode, kind: &'static str, body: impl Into<Shared>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
