//! The command line from the master: Postfix's options for daemons, then the program's own
//! arguments.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use lexopt::{Arg, Parser};

use crate::Error;
use crate::about::Question;

/// The type of the service's listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// TCP.
    Inet,
    /// A stream socket in the file system.
    Unix,
    /// A datagram socket in the file system.
    UnixDatagram,
    /// A named pipe.
    Fifo,
    /// A stream socket in the file system over which clients' connections are passed.
    Pass,
}

impl Transport {
    /// The type's name in the service table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Unix => "unix",
            Self::UnixDatagram => "unix-dgram",
            Self::Fifo => "fifo",
            Self::Pass => "pass",
        }
    }

    fn parse(name: &str) -> Result<Self, Error> {
        let all = [
            Self::Inet,
            Self::Unix,
            Self::UnixDatagram,
            Self::Fifo,
            Self::Pass,
        ];
        let found = all
            .into_iter()
            .find(|t| t.as_str().eq_ignore_ascii_case(name));
        found.ok_or_else(|| Error::Usage(format!("unsupported transport type: {name}")))
    }
}

/// The parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `-c`: chroot to the working directory.
    pub(crate) chroot: bool,
    /// `-d`: the master is attached to a terminal.
    pub(crate) attached: bool,
    /// `-D`: run `debugger_command`.
    pub(crate) debug: bool,
    /// `-l`: the process limit is 1.
    pub(crate) alone: bool,
    /// `-n`: the service's name.
    pub(crate) name: Option<String>,
    /// `-o`, `-i` and `-m`: parameters, in their order.
    pub(crate) settings: Vec<(String, Vec<u8>)>,
    /// `-r`: leave after this time, when idle.
    pub(crate) retire: Option<Duration>,
    /// `-s`: the number of listeners.
    pub(crate) listeners: Option<usize>,
    /// `-S`: one client, on standard input and output.
    pub(crate) standard: bool,
    /// `-t`
    pub(crate) transport: Option<Transport>,
    /// `-u`: become `mail_owner`.
    pub(crate) unprivileged: bool,
    /// `-v`
    pub(crate) verbose: bool,
    /// `-V`: log to standard error as well.
    pub(crate) to_stderr: bool,
    /// `-z`: there is no process limit.
    pub(crate) unlimited: bool,
    /// `--help` or `--version`; what follows is not read.
    pub(crate) question: Option<Question>,
    /// The arguments after the options.
    pub(crate) arguments: Vec<OsString>,
}

impl Options {
    /// Parses the command line, without the program's name, by the rules of getopt(3).
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut parser = Parser::from_args(arguments);
        parser.set_short_equals(false);
        while let Some(argument) = next(&mut parser)? {
            match argument {
                Arg::Short(letter) => options.option(letter, &mut parser)?,
                Arg::Long("help") => return Ok(options.ask(Question::Help)),
                Arg::Long("version") => return Ok(options.ask(Question::Version)),
                Arg::Long(name) => return Err(invalid(&format!("--{name}"))),
                // The first argument ends the options.
                Arg::Value(first) => {
                    options.arguments.push(first);
                    break;
                }
            }
        }
        options.arguments.extend(parser.raw_args().map_err(usage)?);
        Ok(options)
    }

    fn option(&mut self, letter: char, parser: &mut Parser) -> Result<(), Error> {
        let mut value = || {
            let missing = |_| Error::Usage(format!("option -{letter} needs a value"));
            parser.value().map_err(missing)
        };
        let text = |value: OsString| value.to_string_lossy().into_owned();
        match letter {
            'c' => self.chroot = true,
            'd' => self.attached = true,
            'D' => self.debug = true,
            'i' => self.set("max_idle", value()?),
            'l' => self.alone = true,
            'm' => self.set("max_use", value()?),
            'n' => self.name = Some(text(value()?)),
            'o' => self.settings.push(setting(value()?.as_bytes())?),
            'r' => {
                let seconds = positive("-r", &text(value()?))?;
                self.retire = Some(Duration::from_secs(seconds.into()));
            }
            's' => self.listeners = Some(positive("-s", &text(value()?))? as usize),
            'S' => self.standard = true,
            't' => self.transport = Some(Transport::parse(&text(value()?))?),
            'u' => self.unprivileged = true,
            'v' => self.verbose = true,
            'V' => self.to_stderr = true,
            'z' => self.unlimited = true,
            _ => return Err(invalid(&format!("-{letter}"))),
        }
        Ok(())
    }

    fn ask(self, question: Question) -> Self {
        Self {
            question: Some(question),
            ..self
        }
    }

    fn set(&mut self, name: &str, value: OsString) {
        self.settings.push((name.into(), value.into_vec()));
    }
}

fn next(parser: &mut Parser) -> Result<Option<Arg<'_>>, Error> {
    parser.next().map_err(usage)
}

fn usage(error: lexopt::Error) -> Error {
    Error::Usage(error.to_string())
}

pub(crate) fn invalid(option: &str) -> Error {
    Error::Usage(format!("invalid option: {}", option.escape_default()))
}

/// A number that is at least 1.
fn positive(option: &str, text: &str) -> Result<u32, Error> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Error::Usage(format!(
            "{option} {text}: expected a number from 1 up"
        ))),
    }
}

/// `name=value` with optional white space around both.
fn setting(text: &[u8]) -> Result<(String, Vec<u8>), Error> {
    let equals = text.iter().position(|&b| b == b'=');
    let name = String::from_utf8_lossy(text[..equals.unwrap_or(0)].trim_ascii());
    match equals {
        Some(at) if !name.is_empty() => {
            Ok((name.into_owned(), text[at + 1..].trim_ascii().to_vec()))
        }
        _ => {
            let text = String::from_utf8_lossy(text);
            let text = text.escape_default();
            Err(Error::Usage(format!("-o {text}: expected \"name=value\"")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let words = line.split_whitespace().map(OsString::from);
        Options::parse(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_masters_command_line_is_understood() {
        let options = parse("-l -n name -t unix -d -v -u -c -o stress=yes -s 2 user=me argv=x");
        let expected = Options {
            chroot: true,
            attached: true,
            alone: true,
            name: Some("name".into()),
            settings: vec![("stress".into(), b"yes".to_vec())],
            listeners: Some(2),
            transport: Some(Transport::Unix),
            unprivileged: true,
            verbose: true,
            arguments: vec!["user=me".into(), "argv=x".into()],
            ..Options::default()
        };
        assert_eq!(options, Ok(expected));
    }

    #[test]
    fn options_may_share_a_word_and_a_value_may_follow_its_letter() {
        let options = parse("-SVm5 -- -z").unwrap();
        assert!(options.standard && options.to_stderr && !options.unlimited);
        assert_eq!(options.settings, [("max_use".into(), b"5".to_vec())]);
        assert_eq!(options.arguments, ["-z"]);
        assert_eq!(parse("-z -- -- -x").unwrap().arguments, ["--", "-x"]);
    }

    #[test]
    fn options_end_at_the_first_argument() {
        let options = parse("-z argv=sh -c true").unwrap();
        assert!(options.unlimited && !options.chroot);
        assert_eq!(options.arguments, ["argv=sh", "-c", "true"]);
    }

    #[test]
    fn a_question_is_noticed_among_the_options_only() {
        let asked = |line| parse(line).unwrap().question;
        assert_eq!(asked("-S --help --bogus"), Some(Question::Help));
        assert_eq!(asked("--version"), Some(Question::Version));
        for other in ["argv=ls --help", "-- --help", "-n --help", "-v"] {
            assert_eq!(asked(other), None, "{other}");
        }
    }

    #[test]
    fn a_setting_keeps_what_is_inside_its_value() {
        let setting = |text: &str| setting(text.as_bytes()).ok();
        assert_eq!(setting("a=b = c"), Some(("a".into(), b"b = c".to_vec())));
        assert_eq!(setting(" a = b "), Some(("a".into(), b"b".to_vec())));
        assert_eq!(setting("a="), Some(("a".into(), Vec::new())));
        assert_eq!(setting("=b"), None);
        assert_eq!(setting("a"), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, what) in [
            ("-x", "invalid option: -x"),
            ("--wait", "invalid option: --wait"),
            ("-vm", "option -m needs a value"),
            ("-o a", "-o a: expected \"name=value\""),
            ("-s 0", "-s 0: expected a number from 1 up"),
            ("-r soon", "-r soon: expected a number from 1 up"),
            ("-t tcp", "unsupported transport type: tcp"),
        ] {
            assert_eq!(parse(line).unwrap_err(), what);
        }
    }
}
