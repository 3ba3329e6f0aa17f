//! Paths that are long, relative, or not UTF-8: all programs accept the same ones.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use testkit::instance::SOON;
use testkit::programs::{masterctl, service, statusd};
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::test;

/// A configuration directory, with a `master.toml` of this text, in which a master serves.
struct Place {
    standalone: Standalone,
    directory: PathBuf,
}

impl Place {
    #[track_caller]
    fn start(name: &OsStr, toml: &str) -> Self {
        let mut standalone = Standalone::of_a_user();
        standalone.unwatched("the queue directory is another one than the canary's");
        let directory = standalone.path().join(name);
        fs::create_dir(&directory).expect("a directory");
        if geteuid().is_root() {
            let uid = Some(standalone.uid());
            chown(&directory, uid, uid).expect("an owner");
        }
        fs::write(directory.join("master.cf"), "a unix n - - - - true\n").expect("a table");
        fs::write(directory.join("master.toml"), toml).expect("a file");
        let mut command = standalone.master(&["-d"]);
        command.arg("-c").arg(&directory);
        standalone.start_as(command.process_group(0));
        Self {
            standalone,
            directory,
        }
    }

    fn program(&self, program: &Path, arguments: &[&str]) -> Command {
        let installed = self.standalone.install(program);
        let mut command = self.standalone.as_user(&installed);
        command.env("MAIL_CONFIG", &self.directory).args(arguments);
        command
    }

    /// Has each program find the master.
    #[track_caller]
    fn expect_found(&self) {
        for command in ["check", "status", "plan", "reload"] {
            run(&mut self.program(&masterctl(), &[command]), SOON).expect_success();
        }
        let mut elsewhere = self.program(&masterctl(), &["status"]);
        let directory = self.directory.file_name().expect("a name");
        elsewhere.current_dir(self.standalone.path());
        elsewhere.env("MAIL_CONFIG", directory);
        run(&mut elsewhere, SOON).expect_success();
        // Programs of the package, with one client on standard input and output.
        let request = self.standalone.path().join("request");
        fs::write(&request, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a file");
        for (program, answer) in [(statusd(), "HTTP/1.1 200 OK"), (service("echo"), "GET /")] {
            let mut command = self.program(&program, &["-S"]);
            command.stdin(File::open(&request).expect("a file"));
            let said = command.output().expect("a program");
            let text = String::from_utf8_lossy(&said.stdout);
            assert!(text.starts_with(answer), "{said:?}");
        }
        let mut locked = self.standalone.master(&["-t"]);
        locked.arg("-c").arg(&self.directory);
        assert_eq!(run(&mut locked, SOON).status.code(), Some(1));
        run(&mut self.program(&masterctl(), &["stop"]), SOON).expect_success();
    }
}

#[test]
fn a_queue_directory_may_be_longer_than_the_address_of_a_socket() {
    let name = "q".repeat(150);
    let toml = format!(
        "queue_directory = \"$config_directory/{name}\"\ndata_directory = \"$config_directory/d\"\n"
    );
    let place = Place::start(OsStr::new("long"), &toml);
    assert!(place.directory.join(name).join("public/a").exists());
    place.expect_found();
}

#[test]
fn relative_paths_are_below_the_configuration_directory() {
    let toml = "queue_directory = \"run\"\ndata_directory = './state'\nmaillog_file = \"log\"\n\
                daemon_directory = \"programs\"\n";
    let place = Place::start(OsStr::new("relative"), toml);
    assert!(place.directory.join("run/public/a").exists());
    assert!(place.directory.join("state/master.lock").exists());
    let checked = run(&mut place.program(&masterctl(), &["check"]), SOON).expect_success();
    let program = place.directory.join("programs/true");
    let expected = format!("program {}: No such file", program.display());
    assert!(checked.stdout.contains(&expected), "{checked:?}");
    place.expect_found();
    let log = fs::read_to_string(place.directory.join("log")).expect("a log");
    assert!(log.contains("daemon started"), "{log}");
}

#[test]
fn a_configuration_directory_need_not_be_utf_8() {
    let toml = "queue_directory = \"run\"\ndata_directory = \"data\"\n";
    let place = Place::start(OsStr::from_bytes(b"Gr\xf6\xdfe"), toml);
    assert!(place.directory.join("run/public/a").exists());
    place.expect_found();
}

#[test]
fn a_dollar_sign_in_the_configuration_directory_is_no_reference() {
    let toml = "queue_directory = \"run\"\ndata_directory = \"data\"\n";
    let place = Place::start(OsStr::new("a$mail_name"), toml);
    assert!(place.directory.join("run/public/a").exists());
    place.expect_found();
}
