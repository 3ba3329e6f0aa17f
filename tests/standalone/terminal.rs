//! What is seen on the terminal.

use std::fs;

use super::common::instance::SOON;
use super::common::run::run;
use super::world::World;
use std::process::Command;

/// What a master with a faulty table shows on a terminal, with a variable in its environment.
fn shown(name: &str, value: &str) -> String {
    let mut world = World::of_a_user();
    world.write_table("a tcp - - - - - true\n");
    let master = world.master(&["-d"]);
    let words = std::iter::once(master.get_program()).chain(master.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let mut script = Command::new("script");
    script
        .args(["-qec", &words.join(" "), "/dev/null"])
        .env("XDG_RUNTIME_DIR", world.path().join("run"))
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
    let mut world = World::of_a_user();
    world.write_table("a tcp - - - - - true\n");
    let said = world.fail(&["-d"]).stderr;
    assert!(
        !said.contains('\x1b') && said.contains("master: fatal: "),
        "{said}"
    );
}

#[test]
fn messages_name_files_as_they_are() {
    let world = World::of_a_user();
    fs::write(world.table(), "a tcp - - - - - true\n").unwrap();
    let said = world.fail(&["-d"]).stderr;
    let expected = format!(
        "{}: line 1: column 3: bad transport type: tcp",
        world.table().display()
    );
    assert!(said.contains(&expected), "{said}");
}
