//! The command line of tests of unlimited duration.

use std::time::{Duration, Instant};

#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    pub seed: u64,
    /// None with `--forever` and `--minutes`.
    pub steps: Option<u64>,
    /// With `--minutes`.
    end: Option<Instant>,
    /// Words that select parts by their names, as with other tests.
    words: Vec<String>,
}

impl Options {
    /// Parses the arguments. The default is `steps`, or a fraction of it for quick runs.
    ///
    /// # Errors
    /// An argument is invalid.
    pub fn parse(arguments: impl Iterator<Item = String>, steps: u64) -> Result<Self, String> {
        let mut options = Self {
            seed: 1,
            steps: Some(if in_a_hurry() { steps / 50 } else { steps }),
            end: None,
            words: Vec::new(),
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--seed" => options.seed = number(&argument, arguments.next())?,
                "--steps" => options.steps = Some(number(&argument, arguments.next())?),
                "--forever" => options.steps = None,
                "--minutes" => {
                    let minutes = number(&argument, arguments.next())?;
                    options.end = Some(Instant::now() + Duration::from_secs(60 * minutes));
                    options.steps = None;
                }
                // Options that cargo's users give to all tests.
                "--nocapture" | "--no-capture" | "--quiet" | "-q" => {}
                "--test-threads" => drop(arguments.next()),
                option if option.starts_with('-') => {
                    return Err(format!(
                        "{option}: --seed N, --steps N, --minutes N or --forever"
                    ));
                }
                word => options.words.push(word.to_owned()),
            }
        }
        Ok(options)
    }

    /// Whether to continue after this many steps.
    pub fn go_on(&self, steps: u64) -> bool {
        self.steps.is_none_or(|most| steps < most)
            && self.end.is_none_or(|end| Instant::now() < end)
    }

    /// Whether a part of the tests is selected by its name or its part's.
    pub fn choose(&self, part: &str, name: &str) -> bool {
        let whole = format!("{part}::{name}");
        self.words.is_empty() || self.words.iter().any(|word| whole.contains(word.as_str()))
    }
}

/// Whether a small fraction is enough, because the full tests have been run before.
pub fn in_a_hurry() -> bool {
    std::env::var_os("MASTER_TEST_SHORT").is_some()
}

/// Whether these tests are left out, because they run in parallel elsewhere.
pub fn are_apart() -> bool {
    std::env::var_os("MASTER_TEST_APART").is_some()
}

fn number(option: &str, value: Option<String>) -> Result<u64, String> {
    let number = value.and_then(|value| value.replace('_', "").parse().ok());
    number.ok_or(format!("{option} takes a number"))
}
