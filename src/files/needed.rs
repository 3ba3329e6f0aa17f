//! The files without which a program cannot be executed: itself, the interpreters of a script, the loader
//! of a program and its libraries. What a program loads or starts later is not known here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::elf::{Elf, Libraries};
use super::open_regular;

/// How much the kernel reads of a script's first line.
const HEAD: usize = 256;
/// A script's interpreter can be a script; the kernel follows this many.
const SCRIPTS_MAX: usize = 5;
/// Where env(1) looks for a program without `PATH`, with the site's own directory.
const DIRECTORIES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// The real paths of a program, and of what it needs, as far as they can be read.
pub(super) fn needed_files(program: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // One program of a script or of env(1) after the other; the loader of each, and its libraries.
    let mut next = Some(program.to_owned());
    let mut programs = 0;
    while let Some(path) = next.take().filter(|_| programs < SCRIPTS_MAX) {
        programs += 1;
        let Ok(real) = path.canonicalize() else {
            break;
        };
        let Ok(file) = open_regular(&real) else {
            found.push(real);
            break;
        };
        let line = first_line(&file).unwrap_or_default();
        if let Some((interpreter, rest)) = line.as_deref().and_then(script) {
            found.push(real);
            next = Some(interpreter.clone());
            if interpreter.ends_with("env") {
                found.extend(needed_by_binary(&interpreter));
                next = by_env(&rest);
            }
        } else {
            found.push(real.clone());
            found.extend(needed_by_binary(&real));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|path| seen.insert(path.clone()));
    found
}

/// The real paths of a binary that is executed, of its loader and of its libraries, as far as it has them.
fn needed_by_binary(program: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = program.canonicalize().into_iter().collect();
    let elf = open_regular(program)
        .ok()
        .and_then(|file| Elf::read(&file).ok()?);
    if let Some(elf) = elf {
        let loader = elf
            .interpreter
            .as_ref()
            .and_then(|path| path.canonicalize().ok());
        found.extend(loader);
        found.extend(Libraries::of(program, elf));
    }
    found
}

/// What is after `#!`, if the file is a script.
fn first_line(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head)?;
    let line = head.strip_prefix(b"#!");
    let line = line.and_then(|line| line.split(|byte| *byte == b'\n').next());
    Ok(line.map(<[u8]>::to_vec))
}

/// The interpreter of a script, and its argument: all that follows.
fn script(line: &[u8]) -> Option<(PathBuf, Vec<u8>)> {
    let line = line.trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t'));
    let (interpreter, rest) = line.split_at(end.unwrap_or(line.len()));
    let path = Path::new(OsStr::from_bytes(interpreter)).to_owned();
    (!interpreter.is_empty()).then(|| (path, rest.trim_ascii().to_vec()))
}

/// The program that env(1) executes with this argument.
fn by_env(argument: &[u8]) -> Option<PathBuf> {
    let split = [&b"-S"[..], b"--split-string="];
    let split = split
        .iter()
        .find_map(|option| argument.strip_prefix(*option));
    // Without this option, the argument is one name, with its spaces.
    let name = match split {
        None => argument,
        Some(words) => {
            let mut words = words.split(|byte| matches!(byte, b' ' | b'\t'));
            let is_option = |word: &&[u8]| word.starts_with(b"-") || word.contains(&b'=');
            words.find(|word| !word.is_empty() && !is_option(word))?
        }
    };
    let name = Path::new(OsStr::from_bytes(name));
    if name.as_os_str().as_bytes().contains(&b'/') {
        return Some(name.to_owned());
    }
    let paths = DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(name));
    paths.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[PathBuf]) -> Vec<String> {
        let names = paths.iter().filter_map(|path| path.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_script_needs_its_interpreter_and_that_its_loader_and_libraries() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, "#! /bin/sh -e\nexit\n").unwrap();
        let needed = needed_files(&script);
        assert_eq!(needed[0], script.canonicalize().unwrap());
        assert_eq!(needed[1], Path::new("/bin/sh").canonicalize().unwrap());
        let names = names(&needed);
        assert!(names[2].starts_with("ld-"), "{names:?}");
        assert!(
            names.iter().any(|name| name.starts_with("libc")),
            "{names:?}"
        );
    }

    #[test]
    fn a_script_of_a_script_and_of_env_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let inner = path("inner").display().to_string();
        std::fs::write(path("inner"), "#!/bin/sh\n").unwrap();
        for (line, needed) in [
            (format!("#!{inner} x"), vec!["inner", "dash"]),
            ("#!/usr/bin/env sh".to_owned(), vec!["env", "dash"]),
            (
                "#!/usr/bin/env -S A=b -i sh -e".to_owned(),
                vec!["env", "dash"],
            ),
            (
                format!("#!/usr/bin/env {inner}"),
                vec!["env", "inner", "dash"],
            ),
            ("#!/usr/bin/env no-such-program".to_owned(), vec!["env"]),
            ("#!/usr/bin/env".to_owned(), vec!["env"]),
        ] {
            std::fs::write(path("outer"), format!("{line}\n")).unwrap();
            let found = names(&needed_files(&path("outer")));
            let shell = Path::new("/bin/sh").canonicalize().unwrap();
            for name in needed {
                let is_there = found.iter().any(|found| found == name);
                let is_shell = name == "dash" && found.iter().any(|f| shell.ends_with(f));
                assert!(is_there || is_shell, "{line}: {name}: {found:?}");
            }
        }
    }

    #[test]
    fn the_libraries_of_a_program_are_those_that_its_loader_names() {
        let program = std::env::current_exe().unwrap();
        let listed = std::process::Command::new("ldd").arg(&program).output();
        let Ok(listed) = listed else {
            return; // no such program
        };
        let listed = String::from_utf8(listed.stdout).unwrap();
        let needed = needed_files(&program);
        for word in listed
            .split_whitespace()
            .filter(|word| word.starts_with('/'))
        {
            let path = Path::new(word).canonicalize().unwrap();
            assert!(needed.contains(&path), "{word}: {needed:?}");
        }
    }

    #[test]
    fn what_is_no_program_needs_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for text in [
            &b""[..],
            b"#!",
            b"#!\n",
            b"\x7fELF\x02\x01",
            b"text",
            &[0x7f; 300],
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(needed_files(&path).len(), 1, "{text:?}");
        }
        // Numbers that lead nowhere.
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64, 0xff);
        std::fs::write(&path, elf).unwrap();
        assert_eq!(needed_files(&path).len(), 1);
        assert!(needed_files(&directory.path().join("missing")).is_empty());
        // A script whose interpreter is itself ends.
        std::fs::write(&path, format!("#!{}\n", path.display())).unwrap();
        assert_eq!(needed_files(&path).len(), 1);
    }
}
