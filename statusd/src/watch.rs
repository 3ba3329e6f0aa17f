//! Requests the master's status every few seconds, as long as the process runs.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use master::errors::describe_error;
use master::files::SocketPath;
use master::status::day::Day;
use master::status::{Document, FORMAT};
use services::Error;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use crate::history::History;
use crate::metrics::Rendered;
use crate::view::Views;

/// Interval between requests: with 300 samples, the history covers ten minutes.
pub const INTERVAL: Duration = Duration::from_secs(2);
/// How often the history is saved, for `masterctl advise` and in case the process is killed.
const KEEP_INTERVAL: Duration = Duration::from_secs(300);
/// Maximum time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer older than this is not used: the requesting thread may have been delayed.
const STALE: Duration = Duration::from_secs(10);
/// Maximum time that the start waits for the first document.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Maximum size of a document in bytes: 10,000 services with 100 children each need less.
const DOCUMENT_MAX: u64 = 128 * 1024 * 1024;

/// Shared access to the data about the master.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Mutex<MasterData>>);

/// The data about the master.
#[derive(Debug, Default)]
pub struct MasterData {
    pub history: History,
    pub day: Day,
    /// The history as the page gets it.
    pub views: Views,
    /// The last answer.
    answer: Option<Answer>,
    /// Why the last request failed.
    failure: Option<String>,
}

/// A status document, as received and parsed.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: Bytes,
    pub document: Arc<Document>,
    /// The document as metrics.
    pub metrics: Rendered,
    arrived: Instant,
}

impl Watch {
    /// Starts the requests, and continues a history and a day, which are kept now and then by `keep`.
    /// Returns after the first answer, or after a second.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        socket: PathBuf,
        history: History,
        day: Day,
        keep: impl Fn(&MasterData) + Send + 'static,
    ) -> Result<Self, Error> {
        let watch = Self::default();
        watch.known().history = history;
        watch.known().day = day;
        let (told, first) = channel();
        let thread = watch.clone();
        let system = |error| Error::from(format!("cannot watch the master: {error}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system)?;
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                thread.ask(&runtime, &socket);
                // The receiver may already be gone.
                let _ = told.send(());
                thread.go_on(&runtime, &socket, keep);
            })
            .map_err(system)?;
        // Without an answer the process starts nevertheless.
        let _ = first.recv_timeout(FIRST_WITHIN);
        Ok(watch)
    }

    /// The current data.
    pub fn known(&self) -> MutexGuard<'_, MasterData> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on(&self, runtime: &Runtime, socket: &Path, keep: impl Fn(&MasterData)) {
        let mut next = Instant::now() + INTERVAL;
        let mut kept = Instant::now();
        loop {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            self.ask(runtime, socket);
            // After a delayed sample, the next one keeps its distance.
            next = (next + INTERVAL).max(Instant::now());
            if kept.elapsed() >= KEEP_INTERVAL {
                keep(&self.known());
                kept = Instant::now();
            }
        }
    }

    fn ask(&self, runtime: &Runtime, socket: &Path) {
        let result = runtime.block_on(ask(socket));
        self.known().learn(result);
    }
}

impl MasterData {
    fn learn(&mut self, result: Result<Answer, String>) {
        self.views = Views::default();
        match result {
            Ok(answer) => {
                self.history.take(Some(&answer.document));
                self.day.take(&answer.document);
                self.answer = Some(answer);
                self.failure = None;
            }
            Err(failure) => {
                self.history.take(None);
                self.failure = Some(failure);
            }
        }
    }

    /// The answer to the last request, or why it failed.
    ///
    /// # Errors
    /// The master does not answer, or its last answer is too old.
    pub fn current(&self) -> Result<&Answer, String> {
        match (&self.answer, &self.failure) {
            (_, Some(failure)) => Err(failure.clone()),
            (Some(answer), None) if answer.arrived.elapsed() < STALE => Ok(answer),
            (Some(_), None) => Err("nothing was heard for a while".into()),
            (None, None) => Err("nothing has been heard yet".into()),
        }
    }

    /// The last answer, whatever its age, and the age.
    pub fn last(&self) -> Option<(&Answer, Duration)> {
        let answer = self.answer.as_ref()?;
        Some((answer, answer.arrived.elapsed()))
    }
}

/// Makes one request.
async fn ask(socket: &Path) -> Result<Answer, String> {
    let result = timeout(ANSWER_TIMEOUT, read(socket))
        .await
        .unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
    let text =
        result.map_err(|error| format!("{}: {}", socket.display(), describe_error(&error)))?;
    let document = parse(&text).map_err(|why| format!("{}: {why}", socket.display()))?;
    Ok(Answer {
        text: text.into(),
        document: Arc::new(document),
        metrics: Rendered::default(),
        arrived: Instant::now(),
    })
}

async fn read(socket: &Path) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(SocketPath::new(socket)?.as_path()).await?;
    let mut text = Vec::new();
    stream.take(DOCUMENT_MAX + 1).read_to_end(&mut text).await?;
    if text.len() as u64 > DOCUMENT_MAX {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

fn parse(text: &[u8]) -> Result<Document, String> {
    let document: Document = match serde_json::from_slice(text) {
        Ok(document) => document,
        Err(_) if text.is_empty() => return Err("the answer is empty".into()),
        Err(error) => return Err(format!("the answer is no document: {error}")),
    };
    match document.format {
        FORMAT => Ok(document),
        other => Err(format!(
            "the document has format {other}: expected {FORMAT}; install the statusd of the \
             master's own version"
        )),
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// The data after these answers, one for each request.
    pub fn master_data(answers: impl IntoIterator<Item = Result<Document, String>>) -> MasterData {
        let mut known = MasterData::default();
        for answer in answers {
            known.learn_for_test(answer);
        }
        known
    }

    impl MasterData {
        /// One more answer.
        pub fn learn_for_test(&mut self, answer: Result<Document, String>) {
            self.learn(answer.map(|document| Answer {
                text: serde_json::to_vec(&document).expect("JSON").into(),
                document: document.into(),
                metrics: Rendered::default(),
                arrived: Instant::now(),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::master_data;
    use super::*;
    use crate::testing::calm;

    fn text(format: u32) -> Vec<u8> {
        let mut document = calm();
        document.format = format;
        serde_json::to_vec(&document).expect("JSON")
    }

    #[test]
    fn a_document_of_another_format_is_refused() {
        assert!(parse(&text(FORMAT)).is_ok());
        let error = parse(&text(FORMAT + 1)).expect_err("another format");
        assert!(error.contains("expected 1"), "{error}");
    }

    #[test]
    fn fields_that_are_not_known_are_ignored() {
        let mut value: serde_json::Value = serde_json::from_slice(&text(FORMAT)).expect("JSON");
        value["moon"] = "full".into();
        value["services"][0]["moon"] = "full".into();
        assert!(parse(value.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn what_is_cut_off_is_no_document() {
        let text = text(FORMAT);
        assert_eq!(parse(b"").expect_err("nothing"), "the answer is empty");
        let error = parse(&text[..text.len() - 1]).expect_err("a part");
        assert!(error.contains("no document"), "{error}");
    }

    #[test]
    fn the_last_answer_stays_when_the_master_does_not_answer_any_more() {
        let known = master_data([Ok(calm()), Err("gone".into())]);
        assert_eq!(known.current().err().as_deref(), Some("gone"));
        assert!(known.last().is_some());
    }

    #[test]
    fn an_answer_grows_old_when_nobody_asks() {
        let mut known = master_data([Ok(calm())]);
        assert!(known.current().is_ok());
        let answer = known.answer.as_mut().expect("an answer");
        answer.arrived = Instant::now().checked_sub(STALE).expect("a time");
        assert!(known.current().is_err());
    }
}
