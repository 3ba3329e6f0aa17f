//! Parameters for programs that run as children of the master: any name, settings of a command line
//! that override the files, and the program's own defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::reader::Reader;
use super::{complete, default_directories, predefine, stand_alone_defaults};
use crate::config::main_cf::Dictionary;
use crate::config::{
    Base, Diagnostic, Diagnostics, Resolver, Source, Sources, StandAlone, master_toml,
};

/// Parameters by name.
#[derive(Debug)]
pub struct Values {
    dictionary: Dictionary,
}

impl Values {
    /// An empty set of parameters; `directory` is `config_directory`.
    pub fn new(directory: &Path) -> Self {
        let mut dictionary = Dictionary::new(&directory.join("main.cf"));
        predefine(&mut dictionary, directory);
        Self { dictionary }
    }

    /// The parameters of a configuration's files, with defaults. Skips entries with errors and
    /// returns the errors.
    pub fn of(sources: &Sources, resolver: &dyn Resolver) -> (Self, Vec<Diagnostic>) {
        let mut values = Self::new(&sources.directory);
        let mut findings = Vec::new();
        if let Base::Postfix(main_cf) = &sources.base {
            findings.extend(values.load(main_cf));
        }
        findings.extend(sources.tomls().flat_map(|toml| values.load_toml(toml)));
        sources.close(&mut values.dictionary);
        if let Base::StandAlone(stand_alone) = &sources.base {
            values.default_directories(stand_alone);
        }
        let stand_alone = matches!(sources.base, Base::StandAlone(_));
        values.complete(stand_alone, resolver);
        (values, findings)
    }

    /// The directory of further service tables, which need not exist.
    ///
    /// # Errors
    /// What is wrong with the value, and where it is written.
    pub fn table_directory(&self) -> Result<Option<PathBuf>, Diagnostics> {
        self.get(super::table_directory)
    }

    /// Reads `main.cf`. Skips entries with errors and returns the errors.
    pub fn load(&mut self, main_cf: &Source) -> Vec<Diagnostic> {
        let mut findings = Diagnostics::default();
        self.dictionary.load(main_cf, &mut findings);
        findings.0
    }

    /// Reads `master.toml`. Skips entries with errors and returns the errors.
    pub fn load_toml(&mut self, master_toml: &Source) -> Vec<Diagnostic> {
        let mut findings = Diagnostics::default();
        master_toml::merge(master_toml, &mut self.dictionary, &mut findings);
        findings.0
    }

    /// Sets a parameter. This overrides the files.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.dictionary.define(name, value);
    }

    /// Sets a parameter that has no value yet.
    pub fn default(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.dictionary.default(name, value);
    }

    /// Sets the default directories of a stand-alone installation.
    pub fn default_directories(&mut self, stand_alone: &StandAlone) {
        default_directories(&mut self.dictionary, stand_alone);
    }

    /// Sets the defaults of the master's parameters; with `stand_alone`, those of an installation
    /// without Postfix.
    pub fn complete(&mut self, stand_alone: bool, resolver: &dyn Resolver) {
        if stand_alone {
            stand_alone_defaults(&mut self.dictionary, resolver);
        }
        let (hostname, process_id) = (resolver.hostname(), resolver.process_id());
        complete(&mut self.dictionary, &hostname, process_id);
    }

    /// The expanded value; it may be empty.
    ///
    /// # Errors
    /// What is wrong with the value, and where it is written.
    pub fn string(&self, name: &str) -> Result<String, Diagnostics> {
        self.get(|reader| reader.string(name))
    }

    /// The expanded value, which need not be UTF-8 and is not empty.
    ///
    /// # Errors
    /// What is wrong with the value, and where it is written.
    pub fn path(&self, name: &str) -> Result<PathBuf, Diagnostics> {
        self.get(|reader| reader.path(name)).map(PathBuf::from)
    }

    /// A number of at least `least`.
    ///
    /// # Errors
    /// What is wrong with the value, and where it is written.
    pub fn number(&self, name: &str, least: i32) -> Result<i32, Diagnostics> {
        self.get(|reader| reader.number(name, least))
    }

    /// A time of at least one second.
    ///
    /// # Errors
    /// What is wrong with the value, and where it is written.
    pub fn time(&self, name: &str) -> Result<Duration, Diagnostics> {
        self.get(|reader| reader.time(name))
    }

    /// A finding that a parameter's value cannot be used, with its position.
    pub fn reject(&self, name: &str, problem: &str) -> Diagnostics {
        let mut findings = Diagnostics::default();
        Reader::new(&self.dictionary, &mut findings).reject(name, problem.to_owned());
        findings
    }

    fn get<T>(&self, read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Result<T, Diagnostics> {
        let mut findings = Diagnostics::default();
        let value = read(&mut Reader::new(&self.dictionary, &mut findings));
        value.ok_or(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;
    use crate::config::testing::FakeSystem;

    fn system() -> FakeSystem {
        FakeSystem {
            hostname: "host.test",
            ..FakeSystem::default()
        }
    }

    fn values(main_cf: &str) -> Values {
        let mut values = Values::new(Path::new("/etc/postfix"));
        let source = Source {
            path: "main.cf".into(),
            text: main_cf.into(),
        };
        assert_eq!(values.load(&source), []);
        values
    }

    #[test]
    fn a_command_lines_setting_comes_before_the_files_and_theirs_before_the_default() {
        let mut values = values("a = file\nb = file $a\n");
        values.set("a", "line");
        values.default("b", "default");
        values.default("c", "default $myhostname");
        values.complete(false, &system());
        assert_eq!(values.string("a").as_deref(), Ok("line"));
        assert_eq!(values.string("b").as_deref(), Ok("file line"));
        assert_eq!(values.string("c").as_deref(), Ok("default host.test"));
        assert_eq!(values.string("process_id").as_deref(), Ok("4711"));
    }

    #[test]
    fn where_there_is_no_postfix_defaults_are_others() {
        let owner = |stand_alone: bool, system: &FakeSystem| {
            let mut values = values("");
            values.complete(stand_alone, system);
            values.string("mail_owner").expect("a name")
        };
        let mut system = system();
        assert_eq!(owner(false, &system), "postfix");
        assert_eq!(owner(true, &system), "nobody");
        let own = User { uid: 200, gid: 200 };
        system.users.push(("master", own));
        assert_eq!(owner(true, &system), "master");
        assert_eq!(owner(false, &system), "postfix");
        for (uid, gid) in [(0, 200), (200, 0)] {
            system.users.pop();
            system.users.push(("master", User { uid, gid }));
            assert_eq!(owner(true, &system), "nobody", "not one with rights");
        }
    }

    #[test]
    fn a_bad_value_is_found_where_it_is_written() {
        let values = values("limit = 5\nlimit_time = 5x\n");
        assert_eq!(values.number("limit", 1), Ok(5));
        let error = values.number("limit", 6).unwrap_err().to_string();
        assert!(error.starts_with("main.cf: line 1: "), "{error}");
        let error = values.time("limit_time").unwrap_err().to_string();
        assert!(error.starts_with("main.cf: line 2: "), "{error}");
        assert_eq!(
            values.reject("limit", "too many").to_string(),
            "main.cf: line 1: column 9: parameter limit: too many"
        );
    }

    #[test]
    fn what_is_wrong_in_a_file_does_not_hide_the_rest() {
        let mut values = Values::new(Path::new("/etc/postfix"));
        let source = Source {
            path: "main.cf".into(),
            text: b"nonsense\na = 1\n".to_vec(),
        };
        assert_eq!(values.load(&source).len(), 1);
        assert_eq!(values.string("a").as_deref(), Ok("1"));
    }
}
