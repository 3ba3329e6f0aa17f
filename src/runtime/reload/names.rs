//! The names in a configuration. Host names are looked up by another process; until it has
//! answered, a parse finds which ones there are.

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
use crate::sys::lookup::{Answer, Lookup};
use crate::sys::poll::{Interest, Poll};
use crate::sys::signal;

/// Why a name has no answer when no more will come.
const ENDED: &str = "the process that looked it up has ended";
/// A wait of the start, which begins anew when it is over.
const AT_A_TIME: Duration = Duration::from_secs(1000);

/// The host names of one start or reload.
#[derive(Debug, Default)]
pub struct Names {
    known: BTreeMap<String, Answer>,
    /// Those that the last parse has asked for in vain.
    unknown: RefCell<BTreeSet<String>>,
    lookup: Option<Lookup>,
}

impl Names {
    /// Looks up all names for which `parse` asks, at the start.
    ///
    /// # Errors
    /// There can be no other process, or a signal has come that ends the master.
    pub fn look_up_all(parse: impl Fn(&Self)) -> anyhow::Result<Self> {
        let mut names = Self::default();
        loop {
            parse(&names);
            names.begin().context("cannot look host names up")?;
            let Some(lookup) = &mut names.lookup else {
                return Ok(names);
            };
            let why_missing = loop {
                match lookup.read() {
                    Ok(true) => break ENDED.to_owned(),
                    Ok(false) => signal::wait_until_readable(lookup.as_fd(), AT_A_TIME)?,
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
        self.begin()?;
        if let Some(lookup) = &self.lookup {
            poll.add(lookup, Token::Names.key(), Interest::Readable)?;
        }
        Ok(self.lookup.is_some())
    }

    fn begin(&mut self) -> io::Result<()> {
        let unknown = self.unknown.take();
        if !unknown.is_empty() {
            let resolve = |name: &str| files::Names.host(name);
            self.lookup = Some(Lookup::start(unknown.into_iter().collect(), resolve)?);
        }
        Ok(())
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

    /// The host that is being looked up.
    pub(super) fn current(&self) -> Option<&str> {
        self.lookup.as_ref()?.current()
    }

    /// Ends the look-up.
    pub(super) fn forget(self, poll: &Poll) {
        if let Some(lookup) = &self.lookup {
            let _ = poll.remove(lookup);
        }
    }
}

impl Resolver for Names {
    fn host(&self, name: &str) -> Answer {
        let unknown = || {
            self.unknown.borrow_mut().insert(name.to_owned());
            Err("not looked up yet".to_owned())
        };
        self.known.get(name).cloned().unwrap_or_else(unknown)
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
}
