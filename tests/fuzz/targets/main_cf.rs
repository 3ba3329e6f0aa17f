//! `main.cf`, and the values of all its parameters.

use std::collections::BTreeSet;

use super::testing::{FakeSystem, sources};
use super::{Parameters, findings};

pub fn run(input: &[u8]) {
    let own = sources(input, "25 inet n - n - - a\na unix - - n - - a\n");
    let config = findings::parse(&own);
    let alone = Parameters::parse(&own, &FakeSystem::default());
    match (&config, &alone) {
        (Ok(config), Ok(parameters)) => assert_eq!(config.parameters, *parameters),
        (Ok(_), Err(findings)) => panic!("{findings}"),
        // The table can have errors.
        (Err(_), _) => {}
    }
    let _ = findings::parse(&sources(expanding(input), ""));
}

/// The file with references to all its parameters, because the master itself reads only a few.
fn expanding(input: &[u8]) -> Vec<u8> {
    let lines = input.split(|&byte| byte == b'\n');
    let names = lines.map(|line| line.iter().take_while(|&&b| is_name(b)).count());
    let lines = input.split(|&byte| byte == b'\n');
    let names: BTreeSet<&[u8]> = lines.zip(names).map(|(line, end)| &line[..end]).collect();
    let mut text = [input, b"\ndebugger_command ="].concat();
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        text.extend([b" ${", name, b"}"].concat());
    }
    text
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
