//! The template of a preloaded service. The policy does not know of it: it asks for a child, and is told
//! at any time later that the child runs, or that there is none.
//!
//! The world has what makes a difference for the policy. A template that exits, is killed, answers out of
//! turn, sends descriptors or announces what is no child of the master's has ended. One that says that
//! it cannot fork, or whose child leaves at once, has refused. One that takes long has not taken its
//! next step. A reload that waits for new templates is one that is requested later, and one whose
//! templates cannot load was not requested.

use std::collections::VecDeque;
use std::time::Duration;

use master::policy::Time;

const LOAD_TIME: Duration = Duration::from_secs(300);
const FORK_TIME: Duration = Duration::from_secs(10);

/// What the master has seen of it. Each word is a state until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    /// It is to be started.
    Missing,
    Loading,
    Idle,
    Forking,
}

/// What it has said, and the master has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Word {
    Loaded,
    Forked,
    Refused,
    Ended,
}

/// What the policy is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The child with this generation.
    Forked(u32),
    Failed,
}

#[derive(Debug)]
pub struct Template {
    state: State,
    /// When it is killed, unless it has said something.
    until: Option<Time>,
    /// The generation of the child that is asked for.
    request: Option<u32>,
    words: VecDeque<Word>,
    hangs: bool,
}

impl Template {
    pub fn missing() -> Self {
        Self {
            state: State::Missing,
            until: None,
            request: None,
            words: VecDeque::new(),
            hangs: false,
        }
    }

    // The master's actions.

    /// Asks for a child.
    ///
    /// # Errors
    /// One is asked for already.
    pub fn request(&mut self, generation: u32) -> Result<(), String> {
        match self.request.replace(generation) {
            Some(other) => Err(format!("a child beside {other}, which is on its way")),
            None => Ok(()),
        }
    }

    /// Another template takes its place, which has loaded or is still to be started. What was asked for
    /// is asked for again.
    pub fn replace(&mut self, has_loaded: bool) {
        let state = if has_loaded {
            State::Idle
        } else {
            State::Missing
        };
        *self = Self {
            state,
            request: self.request,
            ..Self::missing()
        };
    }

    /// The child that is asked for, of a service that is preloaded no longer.
    pub fn take_request(&mut self) -> Option<u32> {
        self.request.take()
    }

    /// Reads the next word, or finds that it takes too long. `None` if nothing concerns the policy.
    pub fn next_news(&mut self, now: Time) -> Option<News> {
        while let Some(word) = self.words.pop_front() {
            self.until = None;
            match word {
                Word::Loaded => self.state = State::Idle,
                Word::Forked => {
                    self.state = State::Idle;
                    return self.request.take().map(News::Forked);
                }
                Word::Refused => {
                    self.state = State::Idle;
                    self.request = None;
                    return Some(News::Failed);
                }
                Word::Ended => return Some(self.lose()),
            }
        }
        self.until.filter(|until| *until <= now)?;
        Some(self.lose())
    }

    /// It is gone, and what was asked for comes to nothing.
    fn lose(&mut self) -> News {
        *self = Self::missing();
        News::Failed
    }

    /// Starts it, or orders it to fork.
    pub fn proceed(&mut self, now: Time, may_load: bool) {
        if self.state == State::Missing && may_load {
            (self.state, self.until) = (State::Loading, Some(now + LOAD_TIME));
        }
        if self.state == State::Idle && self.request.is_some() && self.words.is_empty() {
            (self.state, self.until) = (State::Forking, Some(now + FORK_TIME));
        }
    }

    pub fn deadline(&self) -> Option<Time> {
        self.until
    }

    /// Whether the master has read all that it has said.
    pub fn is_quiet(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether it is loaded, so that another one can take its place because of its age.
    pub fn has_loaded(&self) -> bool {
        matches!(self.state, State::Idle | State::Forking)
    }

    // Changes without the master.

    /// Lets it take its next step; false if there is none.
    pub fn live(&mut self) -> bool {
        if self.hangs {
            return false;
        }
        self.say(match self.state {
            State::Loading => Word::Loaded,
            State::Forking => Word::Forked,
            State::Missing | State::Idle => return false,
        })
    }

    pub fn refuse(&mut self) -> bool {
        self.state == State::Forking && !self.hangs && self.say(Word::Refused)
    }

    pub fn end(&mut self) -> bool {
        let is_there = self.state != State::Missing && !self.words.contains(&Word::Ended);
        if is_there {
            self.words.push_back(Word::Ended);
        }
        is_there
    }

    /// It does nothing more, until it is killed.
    pub fn hang(&mut self) -> bool {
        self.state != State::Missing && !std::mem::replace(&mut self.hangs, true)
    }

    pub fn recover(&mut self) {
        self.hangs = false;
    }

    /// Says what it says once in a state.
    fn say(&mut self, word: Word) -> bool {
        let is_due = self.words.is_empty();
        if is_due {
            self.words.push_back(word);
        }
        is_due
    }

    /// All that its future depends on.
    pub fn fingerprint(&self, now: Time) -> impl std::hash::Hash + use<> {
        let left = self.until.map(|until| until.saturating_sub(now));
        let words: Vec<Word> = self.words.iter().copied().collect();
        (self.state, left, self.request.is_some(), words, self.hangs)
    }
}
