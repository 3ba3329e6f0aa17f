//! An upgrade: another program goes on in this process with all that the master has. Nothing can be
//! lost half-way: the program is first run beside the master, with the state and the descriptors, and
//! must say that it understands them. The master serves meanwhile, and goes on if anything is wrong.

mod resume;
mod save;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::UnixCredentials;

use super::Runtime;
use super::token::Token;
use crate::control::Answer;
use crate::errors::describe_error;
use crate::log::Severity;
use crate::policy::Time;
use crate::sys::channel::Channel;
use crate::sys::file;
use crate::sys::poll::{Interest, Poll};
use crate::sys::upgrade::{self, CHECK_TIME, Checked, Identity};
use crate::upgrade::{CHECK, State, VARIABLE, read_answer, variable};
pub use resume::Received;
pub(super) use save::Saving;

/// How long the master waits for the process that runs the program.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long children that are being started are waited for.
const STARTS_TIME: Duration = Duration::from_secs(1);
/// When it is looked again whether they have started.
const RETRY: Duration = Duration::from_millis(2);
/// Bytes of an answer that are read.
const ANSWER_MAX: usize = 8192;

/// An upgrade under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Upgrader {
    /// It was asked for, of this program, or of one whose path is not known.
    requested: Option<Option<PathBuf>>,
    stage: Option<Stage>,
    /// The answer of the program is ready to be read.
    pub(super) answered: bool,
    /// Operators that wait for the end.
    pub(super) waiting: Vec<Operator>,
}

/// The connection of an operator, and the process that has made it.
pub(super) type Operator = (Channel, UnixCredentials);

/// How far it has come.
#[derive(Debug)]
struct Stage {
    program: PathBuf,
    /// How long it waits for what it waits for.
    until: Time,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The program says whether it understands the state.
    Check {
        identity: Identity,
        answer: File,
        text: Vec<u8>,
    },
    /// It does, and goes on as soon as nothing is queued and no child is being started.
    Execute { identity: Identity, version: String },
}

impl Upgrader {
    /// Whether it goes on as soon as all is done that is queued.
    pub(super) fn is_due(&self) -> bool {
        let stage = self.stage.as_ref();
        stage.is_some_and(|stage| matches!(stage.step, Step::Execute { .. }))
    }

    pub(super) fn next_deadline(&self, now: Time) -> Option<Time> {
        if self.requested.is_some() || self.answered {
            return Some(now);
        }
        let Stage { until, step, .. } = self.stage.as_ref()?;
        Some(match step {
            Step::Check { .. } => *until,
            Step::Execute { .. } => now + RETRY,
        })
    }

    /// The program of an upgrade that was requested or is under way.
    fn program(&self) -> Option<Option<&Path>> {
        let under_way = self.stage.as_ref().map(|stage| Some(&*stage.program));
        under_way.or_else(|| self.requested.as_ref().map(Option::as_deref))
    }

    fn forget(&mut self, poll: &Poll) {
        if let Some(Step::Check { answer, .. }) = self.stage.take().map(|stage| stage.step) {
            let _ = poll.remove(&answer);
        }
    }
}

/// The program, and why it does not go on.
struct Refusal {
    program: Option<PathBuf>,
    why: String,
}

impl Runtime {
    /// An operator, or a signal, asks for an upgrade to this program, or to the one by which the master
    /// was started. There is one upgrade at a time: a request for another program is refused, and one
    /// for the same program gets the same answer.
    pub(super) fn request_upgrade(
        &mut self,
        now: Time,
        program: Option<PathBuf>,
        operator: Option<Operator>,
    ) {
        let program = program.or_else(|| self.setup.program.clone());
        match self.upgrader.program() {
            Some(other) if other != program.as_deref() => {
                let other = other.unwrap_or(Path::new("unknown"));
                let why = format!(
                    "another upgrade, to {}, is under way: try again when it is over",
                    other.display()
                );
                self.refuse_upgrade(now, &Refusal { program, why }, operator);
            }
            Some(_) => self.upgrader.waiting.extend(operator),
            None => {
                self.upgrader.requested = Some(program);
                self.upgrader.waiting.extend(operator);
            }
        }
    }

    /// Begins an upgrade that was requested, or goes on with one.
    pub(super) fn upgrade(&mut self, now: Time) {
        let outcome = match self.upgrader.requested.take() {
            Some(program) => self.begin_upgrade(now, program),
            None => self.go_on_with_upgrade(now),
        };
        if let Err(refusal) = outcome {
            self.upgrader.forget(&self.poll);
            let waiting = mem::take(&mut self.upgrader.waiting);
            self.refuse_upgrade(now, &refusal, waiting);
        }
    }

    fn begin_upgrade(&mut self, now: Time, program: Option<PathBuf>) -> Result<(), Refusal> {
        let Some(program) = program else {
            let why = "the path by which the master was started is not known: name the program";
            return Err(Refusal {
                program: None,
                why: why.to_owned(),
            });
        };
        let checking = self.check_program(now, &program);
        self.upgrader.stage = Some(checking.map_err(|why| Refusal {
            program: Some(program),
            why,
        })?);
        Ok(())
    }

    /// Runs the program beside the master.
    fn check_program(&mut self, now: Time, program: &Path) -> Result<Stage, String> {
        let described = |error: std::io::Error| describe_error(&error);
        let identity = upgrade::executable(program).map_err(described)?;
        let state = self.save(now);
        let sealed = sealed(&state)?;
        let answer = upgrade::check(program, CHECK, &sealed, &state.descriptors);
        let answer = answer.map_err(described)?;
        let watched = self
            .poll
            .add(&answer, Token::Upgrade.key(), Interest::Readable);
        watched.map_err(described)?;
        Ok(Stage {
            program: program.to_owned(),
            until: now + CHECK_TIME + PATIENCE,
            step: Step::Check {
                identity,
                answer,
                text: Vec::new(),
            },
        })
    }

    fn go_on_with_upgrade(&mut self, now: Time) -> Result<(), Refusal> {
        let answered = mem::take(&mut self.upgrader.answered);
        let Some(mut stage) = self.upgrader.stage.take() else {
            return Ok(());
        };
        let in_time = now < stage.until;
        let waits = match &mut stage.step {
            Step::Check { answer, text, .. } => !(answered && read(answer, text)) && in_time,
            Step::Execute { .. } => {
                let starts = self.spawner.is_starting() && in_time;
                starts || !self.is_settled() || self.reloader.is_closing()
            }
        };
        if waits {
            self.upgrader.stage = Some(stage);
            return Ok(());
        }
        let Stage { program, step, .. } = stage;
        let next = match step {
            Step::Check {
                identity,
                answer,
                text,
            } => {
                let _ = self.poll.remove(&answer);
                version(&Checked::decode(&text)).and_then(|version| {
                    unchanged(&program, identity)?;
                    Ok(Step::Execute { identity, version })
                })
            }
            Step::Execute { identity, version } => {
                Err(self.execute_program(now, &program, identity, &version))
            }
        };
        match next {
            Ok(step) => {
                self.upgrader.stage = Some(Stage {
                    program,
                    until: now + STARTS_TIME,
                    step,
                });
                Ok(())
            }
            Err(why) => Err(Refusal {
                program: Some(program),
                why,
            }),
        }
    }

    /// Executes the program in this process. Returned is why that was not possible.
    fn execute_program(
        &mut self,
        now: Time,
        program: &Path,
        identity: Identity,
        version: &str,
    ) -> String {
        self.log.info(format!(
            "upgrading from {} to {version}: executing {}",
            env!("CARGO_PKG_VERSION"),
            program.display()
        ));
        let mut state = self.save(now);
        let sealed = match sealed(&state) {
            Ok(sealed) => sealed,
            Err(why) => return why,
        };
        let fd = std::os::fd::AsRawFd::as_raw_fd(&sealed);
        state.descriptors.push(fd);
        let mut environment = self.setup.inherited.clone();
        let value = variable(std::process::id(), fd);
        environment.insert(VARIABLE.into(), value.into());
        // It may have waited for long, and there is no way back from another program.
        if let Err(why) = unchanged(program, identity) {
            return why;
        }
        describe_error(&upgrade::exec(program, &environment, &state.descriptors))
    }

    /// Logs why there is no upgrade, and tells these operators.
    fn refuse_upgrade(
        &mut self,
        now: Time,
        refusal: &Refusal,
        operators: impl IntoIterator<Item = Operator>,
    ) {
        let program = refusal.program.as_deref();
        let program = program.map(|path| format!("{}: ", path.display()));
        let program = program.unwrap_or_default();
        let why = format!("{program}{}", refusal.why);
        let text = format!("upgrade refused, and nothing has changed: {why}");
        self.log.write(Severity::Warning, &text);
        for (connection, peer) in operators {
            self.answer_upgrade(now, &connection, peer, Answer::NotUpgraded, &why);
        }
    }

    /// Tells the operators that wait that the next version serves.
    pub(super) fn answer_upgraded(&mut self, now: Time) {
        for (connection, peer) in mem::take(&mut self.upgrader.waiting) {
            self.answer_upgrade(now, &connection, peer, Answer::Done, "");
        }
    }
}

/// Reads what has come. Whether that is all.
fn read(answer: &File, text: &mut Vec<u8>) -> bool {
    let mut bytes = [0; 1024];
    loop {
        match (&mut &*answer).read(&mut bytes) {
            Ok(0) => return true,
            Ok(length) if text.len() + length <= ANSWER_MAX => {
                text.extend_from_slice(&bytes[..length]);
            }
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return true,
        }
    }
}

/// The state's document, in memory that cannot be changed any more.
fn sealed(state: &State) -> Result<OwnedFd, String> {
    let text = state.encode().map_err(|unfit| unfit.to_string())?;
    file::sealed(c"master-state", &text).map_err(|error| describe_error(&error))
}

/// Whether a program's file is still the one that was asked.
fn unchanged(program: &Path, identity: Identity) -> Result<(), String> {
    match upgrade::executable(program) {
        Ok(now) if now == identity => Ok(()),
        _ => Err("it was replaced while it was looked at: try again".to_owned()),
    }
}

/// The version of a program that understands the state, or why it is not to be executed.
fn version(checked: &Checked) -> Result<String, String> {
    match checked {
        Checked::Exited(status, text) => read_answer(*status, text),
        Checked::Killed(signal, _) => Err(format!(
            "killed by signal {signal} when asked whether it understands the state"
        )),
        Checked::NotExecuted(why) => Err(why.clone()),
        Checked::Silent => Err(format!(
            "it has not said within {} s whether it understands the state",
            CHECK_TIME.as_secs()
        )),
    }
}
