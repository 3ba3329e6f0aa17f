//! Output on a terminal.

use std::fs;

use std::process::Command;
use testkit::instance::SOON;
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::test;

/// The output of a master with a faulty table on a terminal, with this variable in its environment.
fn shown(name: &str, value: &str) -> String {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a tcp - - - - - true\n");
    let master = standalone.master(&["-d"]);
    let words: Vec<_> = std::iter::once(master.get_program())
        .chain(master.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let mut script = Command::new("script");
    script
        .args(["-qec", &words.join(" "), "/dev/null"])
        .env("XDG_RUNTIME_DIR", standalone.path().join("run"))
        .env("TERM", "xterm")
        .env_remove("NO_COLOR")
        .env(name, value);
    run(&mut script, SOON).expect_failure().stdout
}

#[test]
fn a_terminal_shows_errors_in_colour() {
    assert!(shown("A", "B").contains("master: \x1b[1;31mfatal: \x1b[0m"));
}

#[test]
fn colours_can_be_refused() {
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = shown(name, value);
        assert!(shown.contains("master: fatal: "), "{shown}");
    }
}

#[test]
fn what_is_no_terminal_gets_no_colours() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a tcp - - - - - true\n");
    let said = standalone.fail(&["-d"]).stderr;
    assert!(
        !said.contains('\x1b') && said.contains("master: fatal: "),
        "{said}"
    );
}

#[test]
fn messages_name_files_as_they_are() {
    let standalone = Standalone::of_a_user();
    fs::write(standalone.table(), "a tcp - - - - - true\n").unwrap();
    let said = standalone.fail(&["-d"]).stderr;
    let expected = format!(
        "{}: line 1: column 3: bad transport type: tcp",
        standalone.table().display()
    );
    assert!(said.contains(&expected), "{said}");
}
