//! The names in a configuration. Host names are looked up by another process; until it has
//! answered, a parse finds which ones there are.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::config::{Family, Resolver, User};
use crate::errors::describe_error;
use crate::files;
use crate::runtime::token::Token;
use crate::sys::lookup::{Answer, Lookup};
use crate::sys::poll::{Interest, Poll};

/// The host names of one reload.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<String, Answer>,
    /// Those that the last parse has asked for in vain.
    unknown: RefCell<BTreeSet<String>>,
    lookup: Option<Lookup>,
}

impl Names {
    /// Begins to look up what the last parse has asked for in vain. False if that is nothing.
    ///
    /// # Errors
    /// The system's: there can be no other process.
    pub(super) fn look_up(&mut self, poll: &Poll) -> io::Result<bool> {
        let unknown = self.unknown.take();
        if unknown.is_empty() {
            return Ok(false);
        }
        let lookup = Lookup::start(unknown.into_iter().collect(), |name| {
            files::Names.host(name)
        })?;
        poll.add(&lookup, Token::Names.key(), Interest::Readable)?;
        self.lookup = Some(lookup);
        Ok(true)
    }

    /// Takes the answers that have come. Whether these are all: `missing`, if it is there, ends the
    /// wait, and is the answer for those that have not come.
    pub(super) fn read(&mut self, missing: Option<&str>, poll: &Poll) -> bool {
        let Some(lookup) = &mut self.lookup else {
            return true;
        };
        let why_missing = match (lookup.read(), missing) {
            (Ok(true), _) => "the process that looked it up has ended".to_owned(),
            (Ok(false), Some(missing)) => missing.to_owned(),
            (Ok(false), None) => return false,
            (Err(error), _) => describe_error(&error),
        };
        let _ = poll.remove(lookup);
        let answers = self.lookup.take().map(|l| l.into_answers(&why_missing));
        self.known.extend(answers.unwrap_or_default());
        true
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

    fn user(&self, name: &str) -> Option<User> {
        files::Names.user(name)
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        files::Names.user_name(uid)
    }

    fn has_family(&self, family: Family) -> bool {
        files::Names.has_family(family)
    }

    fn process_id(&self) -> u32 {
        files::Names.process_id()
    }

    fn check_log_file(&self, path: &Path) -> Result<(), String> {
        files::Names.check_log_file(path)
    }
}
