//! The files without which a program cannot be executed: itself, and its interpreter or loader.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::open_regular;

/// How much the kernel reads of a script's first line.
const HEAD: usize = 256;
/// A script's interpreter can be a script; the kernel follows this many.
const SCRIPTS_MAX: usize = 5;
/// The parts of a program that are looked at; linkers make about ten.
const HEADERS_MAX: usize = 64;

/// The real paths of a program, and of its interpreters and loader, as far as they can be read.
pub(super) fn needed_files(program: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = Some(program.to_owned());
    while let Some(path) = next.take().filter(|_| found.len() < SCRIPTS_MAX) {
        let Ok(real) = path.canonicalize() else {
            break;
        };
        next = open_regular(&real)
            .and_then(|file| interpreter(&file))
            .unwrap_or(None);
        found.push(real);
    }
    found
}

/// What the kernel executes for a script, or loads for a program.
fn interpreter(file: &File) -> io::Result<Option<PathBuf>> {
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
        let word = words.find(|word| !word.is_empty());
        return Ok(word.map(|word| OsStr::from_bytes(word).into()));
    }
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    // An ELF file of 64 bits, little endian (elf(5)): where its program headers are, how large one
    // is, and how many there are.
    let (at, size) = (number(&head, 32, 8), number(&head, 54, 2));
    let count = number(&head, 56, 2).map(|count| count.min(HEADERS_MAX as u64));
    for index in 0..count.unwrap_or(0) {
        let Some((at, size)) = at.zip(size) else {
            break;
        };
        let mut header = [0; 56];
        file.read_exact_at(&mut header, at.saturating_add(index * size))?;
        // PT_INTERP, whose text is at the offset, with the size in the file.
        if number(&header, 0, 4) == Some(3) {
            let (at, size) = (number(&header, 8, 8), number(&header, 32, 8));
            let size = size.unwrap_or(0).min(4096) as usize;
            let mut text = vec![0; size];
            file.read_exact_at(&mut text, at.unwrap_or(0))?;
            let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
            return Ok(Some(OsStr::from_bytes(text).into()));
        }
    }
    Ok(None)
}

fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| (number << 8) | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_needs_its_interpreter_and_that_its_loader() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        std::fs::write(&script, "#! /bin/sh -e\nexit\n").unwrap();
        let needed = needed_files(&script);
        assert_eq!(needed.len(), 3, "{needed:?}");
        assert_eq!(needed[0], script.canonicalize().unwrap());
        assert_eq!(needed[1], Path::new("/bin/sh").canonicalize().unwrap());
        let loader = needed[2]
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        assert!(loader.starts_with("ld-"), "{loader}");
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
        assert_eq!(needed_files(&path).len(), SCRIPTS_MAX);
    }
}
