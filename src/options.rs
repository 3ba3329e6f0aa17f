//! The command line, which is that of Postfix's master(8).

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser};

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-c`: the configuration directory, or a service table.
    pub configuration: Option<PathBuf>,
    /// `-D`: run the debugger after initialization.
    pub debug: bool,
    /// `-d`: stay attached to the terminal, and say so to the children.
    pub attached: bool,
    /// `-e`: end after this time.
    pub exit_time: Option<Duration>,
    /// `-i`: run as process 1 of a container.
    pub init: bool,
    /// `-s`: keep standard output.
    pub keep_stdout: bool,
    /// `-t`: only test whether a master is running.
    pub test_lock: bool,
    /// `-v`: say more; how often it was given.
    pub verbose: u32,
    /// `-w`: wait in the foreground until the daemon is up.
    pub wait: bool,
    /// `--resume-check`: only say whether this program can go on from the state at this descriptor.
    pub resume_check: Option<i32>,
    /// `-h`, `--help`: show the options.
    pub help: bool,
    /// `-V`, `--version`: show the version.
    pub version: bool,
}

/// Shown when the command line is not understood, and by `-h`.
pub const USAGE: &str = "\
usage: master [-Ddisvw] [-c configuration] [-e exit_time]
       master -t [-c configuration]
       master --help | --version
  -c configuration
                 the directory of main.cf and master.cf, for Postfix; or that of master.cf,
                 or a service table, for services that stand alone; master.toml may be beside
                 them; otherwise $MAIL_CONFIG or /etc/postfix
  -D             run debugger_command on this process and wait for it to return
  -d             do not detach from the terminal
  -e exit_time   end after this number of seconds
  -h, --help     show this
  -i             run as process 1 of a container
  -s             keep standard output open
  -t             test: exit 0 when no master is running, 1 when one is
  -V, --version  show the version
  -v             say more; may be repeated
  -w             wait until the daemon is up, and exit 0 only then
";

impl Options {
    /// Reads the arguments after the program's name. `MAIL_VERBOSE` and `MAIL_DEBUG` in the
    /// environment are `-v` and `-D`.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub fn parse(
        arguments: impl Iterator<Item = OsString>,
        environment: impl Fn(&str) -> bool,
    ) -> Result<Self, String> {
        let mut options = Self {
            verbose: u32::from(environment("MAIL_VERBOSE")),
            debug: environment("MAIL_DEBUG"),
            ..Self::default()
        };
        let mut parser = Parser::from_args(arguments);
        // As getopt(3) has it: in -e=5, the value is "=5".
        parser.set_short_equals(false);
        while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
            match argument {
                Arg::Short('c') => options.configuration = Some(value(&mut parser, 'c')?.into()),
                Arg::Short('D') => options.debug = true,
                Arg::Short('d') => options.attached = true,
                Arg::Short('e') => options.exit_time = Some(seconds(&value(&mut parser, 'e')?)?),
                // Whatever follows, these are answered.
                Arg::Short('h') | Arg::Long("help") => {
                    options.help = true;
                    return Ok(options);
                }
                Arg::Short('V') | Arg::Long("version") => {
                    options.version = true;
                    return Ok(options);
                }
                Arg::Short('i') => {
                    options.init = true;
                    options.keep_stdout = true;
                }
                Arg::Short('s') => options.keep_stdout = true,
                Arg::Short('t') => options.test_lock = true,
                Arg::Short('v') => options.verbose = options.verbose.saturating_add(1),
                Arg::Short('w') => options.wait = true,
                Arg::Long("resume-check") => {
                    let fd = parser.value().map_err(|error| error.to_string())?;
                    let fd = fd.to_str().and_then(|fd| fd.parse().ok());
                    options.resume_check = Some(fd.ok_or("--resume-check: no descriptor")?);
                }
                Arg::Short(letter) => return Err(format!("unknown option -{letter}")),
                Arg::Long(name) => return Err(format!("unknown option --{name}")),
                Arg::Value(extra) => {
                    let extra = extra.to_string_lossy();
                    return Err(format!("unexpected argument \"{extra}\""));
                }
            }
        }
        options.check()?;
        Ok(options)
    }

    /// Some options contradict each other (Postfix, `master.c`).
    fn check(&self) -> Result<(), String> {
        if self.test_lock && self.wait {
            return Err("the -t and -w options cannot be used together".into());
        }
        if self.init && (self.debug || self.attached || self.wait) {
            return Err("the -i option cannot be used with -D, -d, or -w".into());
        }
        Ok(())
    }
}

/// What follows an option, in the same argument or as the next one.
fn value(parser: &mut Parser, letter: char) -> Result<OsString, String> {
    let missing = |_| format!("option -{letter} needs a value");
    parser.value().map_err(missing)
}

fn seconds(value: &OsStr) -> Result<Duration, String> {
    let seconds = value.to_str().and_then(|value| value.parse::<u32>().ok());
    let value = value.to_string_lossy();
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| format!("option -e: \"{value}\" is no number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(OsString::from), |_| false)
    }

    #[test]
    fn options_may_be_written_together_and_values_attached() {
        let options = parse("-dvv -c/etc/postfix-out -e 30").unwrap();
        assert!(options.attached);
        assert_eq!(options.verbose, 2);
        assert_eq!(options.configuration, Some("/etc/postfix-out".into()));
        assert_eq!(options.exit_time, Some(Duration::from_secs(30)));
    }

    #[test]
    fn the_environment_counts_as_options() {
        let options = Options::parse(std::iter::empty(), |name| name == "MAIL_DEBUG").unwrap();
        assert!(options.debug);
        assert_eq!(options.verbose, 0);
    }

    #[test]
    fn process_one_keeps_its_standard_output() {
        let options = parse("-i").unwrap();
        assert!(options.init && options.keep_stdout);
    }

    #[test]
    fn help_and_version_are_answered_whatever_follows() {
        for help in ["-h", "--help", "-dh", "-d --help --wait", "-t -w --help"] {
            assert!(parse(help).unwrap().help, "{help}");
        }
        for version in ["-V", "--version", "-c x --version start"] {
            assert!(parse(version).unwrap().version, "{version}");
        }
        assert!(parse("-- --help").is_err());
        assert_eq!(
            parse("-c --help").unwrap().configuration,
            Some("--help".into())
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert_eq!(parse("-x").unwrap_err(), "unknown option -x");
        assert_eq!(parse("-dx").unwrap_err(), "unknown option -x");
        assert_eq!(parse("-c").unwrap_err(), "option -c needs a value");
        assert_eq!(parse("start").unwrap_err(), "unexpected argument \"start\"");
        assert_eq!(parse("--wait").unwrap_err(), "unknown option --wait");
        assert_eq!(parse("-").unwrap_err(), "unexpected argument \"-\"");
        assert_eq!(parse("-- -d").unwrap_err(), "unexpected argument \"-d\"");
        for soon in ["-e soon", "-e=5", "-e -1", "-e 4294967296"] {
            assert!(parse(soon).unwrap_err().contains("no number of seconds"));
        }
        assert!(parse("-t -w").unwrap_err().contains("-t and -w"));
        for other in ["-D", "-d", "-w"] {
            assert!(parse(&format!("-i {other}")).is_err());
        }
    }

    /// The letters of the options that a text has on lines that begin with `start`.
    fn letters(text: &str, start: &str) -> Vec<char> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(start));
        let mut letters: Vec<_> = lines.filter_map(|rest| rest.chars().next()).collect();
        letters.sort_unstable();
        letters
    }

    #[test]
    fn the_manual_and_the_usage_have_every_option() {
        let is_known = |letter: &char| match parse(&format!("-{letter}")) {
            Ok(_) => true,
            Err(error) => !error.starts_with("unknown option"),
        };
        let known: Vec<char> = ('A'..='z').filter(is_known).collect();
        let manual = include_str!("../man/master.8");
        let options = manual.split(".Ss Signals").next().unwrap();
        assert_eq!(letters(options, ".It Fl "), known);
        assert_eq!(letters(USAGE, "  -"), known);
    }
}
