//! What a program says about itself with `--help` and `--version`.

use std::process::ExitCode;

use master::output::answer;

/// What a program says about itself with `--help` and `--version`. See [`run_as`](crate::run_as).
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// What the program does: a sentence.
    pub summary: &'static str,
    /// The arguments after the options, as in a manual.
    pub arguments: &'static str,
    /// The program's version.
    pub version: &'static str,
}

/// For a program that says nothing about itself. The version is this library's.
impl Default for About {
    fn default() -> Self {
        Self {
            summary: "A service for master(8).",
            arguments: "[argument ...]",
            version: concat!("(services ", env!("CARGO_PKG_VERSION"), ")"),
        }
    }
}

/// A question on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Help,
    Version,
}

impl Question {
    /// The option.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Help => "--help",
            Self::Version => "--version",
        }
    }
}

/// The options, which all programs have.
const OPTIONS: &str = "
master(8) runs this program, with options of its own. The other options are for the service table,
and for trials:
  -S               serve one client on standard input and output, without a master
  -m, -i value     set max_use or max_idle
  -o name=value    set a parameter
  -r seconds       leave when idle, this time after the start
  -v               log more
  -V               log to standard error as well
  --help           show this
  --version        show the version
master-services(8) has all options and parameters.
";

impl About {
    pub(crate) fn answer(&self, program: &str, question: Question) -> ExitCode {
        let Self {
            summary, arguments, ..
        } = self;
        let text = match question {
            Question::Version => format!("{program} {}\n", self.version),
            Question::Help => {
                let usage = format!("usage: {program} [options] {arguments}");
                format!("{}\n{summary}\n{OPTIONS}", usage.trim_end())
            }
        };
        answer(program, &text)
    }
}
