//! The names in a configuration. Host names are looked up by another process, and so is whether files
//! are root's alone, because a file system may hang; until it has answered, a parse finds which ones
//! there are.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::config::{Family, Resolver, User};
use crate::errors::describe_error;
use crate::files;
use crate::runtime::token::Token;
use crate::sys::lookup::{Answer, Lookup, Question};
use crate::sys::poll::{Interest, Poll};
use crate::sys::{clock, signal};

/// Why a name has no answer when no more will come.
const ENDED: &str = "the process that looked it up has ended";
/// How long a reload waits for all of its host names. (The resolver's own limits, resolv.conf(5),
/// are for each name and each server.)
const NAMES_TIME: Duration = Duration::from_secs(60);
/// How long a start and a reload wait for what is asked of files.
const FILES_TIME: Duration = Duration::from_secs(5);
/// A wait of the start, which begins anew when it is over.
const AT_A_TIME: Duration = Duration::from_secs(1000);

/// The host names of one start or reload.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<Question, Answer>,
    /// Questions that the last parse has asked, and to which there is no answer yet.
    unknown: RefCell<BTreeSet<Question>>,
    lookup: Option<Lookup>,
}

impl Names {
    /// Looks up all names for which `parse` asks, at the start. What it has made of the answers, and
    /// these.
    ///
    /// # Errors
    /// There can be no other process, or a signal has come that ends the master.
    pub fn look_up_all<T>(parse: impl Fn(&Self) -> T) -> anyhow::Result<(T, Self)> {
        let mut names = Self::default();
        loop {
            let parsed = parse(&names);
            if !names.begin().context("cannot look host names up")? {
                return Ok((parsed, names));
            }
            drop(parsed);
            // A start waits for host names as long as it takes.
            let limit = names.is_about_files().then_some(FILES_TIME);
            let until = limit.map(|limit| clock::monotonic() + limit);
            let Some(lookup) = &mut names.lookup else {
                continue;
            };
            let why_missing = loop {
                match lookup.read() {
                    Ok(true) => break ENDED.to_owned(),
                    Ok(false) if until.is_some_and(|until| until <= clock::monotonic()) => {
                        break no_answer(FILES_TIME);
                    }
                    Ok(false) => {
                        let limit = limit.unwrap_or(AT_A_TIME);
                        signal::wait_until_readable(lookup.as_fd(), limit)?;
                    }
                    Err(error) => break describe_error(&error),
                }
            };
            names.finish(&why_missing);
        }
    }

    /// Begins to look up what the last parse has asked for in vain. False if that is nothing.
    ///
    /// # Errors
    /// The system's: there can be no other process.
    pub(super) fn look_up(&mut self, poll: &Poll) -> io::Result<bool> {
        let asked = self.begin()?;
        if let Some(lookup) = &self.lookup {
            poll.add(lookup, Token::Names.key(), Interest::Readable)?;
        }
        Ok(asked)
    }

    fn begin(&mut self) -> io::Result<bool> {
        let mut questions = self.unknown.take();
        if questions.is_empty() {
            return Ok(false);
        }
        let about_files = questions.iter().any(Question::is_file);
        if about_files {
            // Host names are for another process, which does not have root's rights.
            questions.retain(Question::is_file);
        }
        match Lookup::start(questions.iter().cloned().collect(), resolve) {
            Ok(lookup) => self.lookup = Some(lookup),
            // Files can be looked at without another process.
            Err(_) if about_files => {
                let answers = questions.into_iter().map(|question| {
                    let answer = resolve(&question);
                    (question, answer)
                });
                self.known.extend(answers);
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Whether answers are to come.
    pub(super) fn is_pending(&self) -> bool {
        self.lookup.is_some()
    }

    fn answer(&self, question: Question) -> Answer {
        self.known.get(&question).cloned().unwrap_or_else(|| {
            self.unknown.borrow_mut().insert(question);
            Err("not looked up yet".to_owned())
        })
    }

    /// How long to wait for the answers: a name server may take some time, a file system is there or
    /// not.
    pub(super) fn time_limit(&self) -> Duration {
        if self.is_about_files() {
            FILES_TIME
        } else {
            NAMES_TIME
        }
    }

    fn is_about_files(&self) -> bool {
        self.current().is_some_and(Question::is_file)
    }

    /// Takes the answers that have come. Whether these are all: `missing`, if it is there, ends the
    /// wait, and is the answer for those that have not come.
    pub(super) fn read(&mut self, missing: Option<&str>, poll: &Poll) -> bool {
        let Some(lookup) = &mut self.lookup else {
            return true;
        };
        let why_missing = match (lookup.read(), missing) {
            (Ok(true), _) => ENDED.to_owned(),
            (Ok(false), Some(missing)) => missing.to_owned(),
            (Ok(false), None) => return false,
            (Err(error), _) => describe_error(&error),
        };
        let _ = poll.remove(lookup);
        self.finish(&why_missing);
        true
    }

    fn finish(&mut self, why_missing: &str) {
        let answers = self.lookup.take().map(|l| l.into_answers(why_missing));
        self.known.extend(answers.unwrap_or_default());
    }

    /// What is being looked up.
    pub(super) fn current(&self) -> Option<&Question> {
        self.lookup.as_ref()?.current()
    }

    /// Ends the look-up.
    pub(super) fn forget(self, poll: &Poll) {
        if let Some(lookup) = &self.lookup {
            let _ = poll.remove(lookup);
        }
    }
}

/// Why a question has no answer when the wait is over.
pub(super) fn no_answer(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// The other process's answer.
fn resolve(question: &Question) -> Answer {
    match question {
        Question::File(path) => files::Names.check_trust(path).map(|()| Vec::new()),
        Question::Host(name) => files::Names.host(name),
    }
}

impl Resolver for Names {
    fn host(&self, name: &str) -> Answer {
        self.answer(Question::Host(name.to_owned()))
    }

    fn hostname(&self) -> String {
        files::Names.hostname()
    }

    fn tcp_service(&self, name: &str) -> Option<u16> {
        files::Names.tcp_service(name)
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        files::Names.interfaces()
    }

    fn has_address(&self, address: IpAddr) -> bool {
        files::Names.has_address(address)
    }

    fn user(&self, name: &str) -> Option<User> {
        files::Names.user(name)
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        files::Names.user_name(uid)
    }

    fn groups(&self, user: &str, gid: u32) -> Vec<u32> {
        files::Names.groups(user, gid)
    }

    fn group(&self, name: &str) -> Option<u32> {
        files::Names.group(name)
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf, String> {
        files::Names.real_path(path)
    }

    fn needed_files(&self, program: &Path) -> Vec<PathBuf> {
        files::Names.needed_files(program)
    }

    fn landlock_version(&self) -> u32 {
        files::Names.landlock_version()
    }

    fn has_family(&self, family: Family) -> bool {
        files::Names.has_family(family)
    }

    fn process_id(&self) -> u32 {
        files::Names.process_id()
    }

    fn check_log_file(&self, path: &Path, alone: bool) -> Result<(), String> {
        files::Names.check_log_file(path, alone)
    }

    fn check_trust(&self, path: &Path) -> Result<(), String> {
        self.answer(Question::File(path.to_owned())).map(drop)
    }
}
