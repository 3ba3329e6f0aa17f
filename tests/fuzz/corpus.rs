//! The initial inputs: `seeds`, one for each corner of a grammar; `regressions`, which have failed
//! once; and files from other sources. Also `words`, which random changes of single bytes would
//! hardly find.
//!
//! A seed that is named by a hash was found by libFuzzer and reaches code that the others do not.

use std::fs;
use std::path::{Path, PathBuf};

/// An input and its name.
#[derive(Debug)]
pub struct Input {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Files that the machine may have. Postfix's own files are not copied, because their licence
/// differs from ours.
const ELSEWHERE: [(&str, &str); 4] = [
    ("main_cf", "/usr/share/postfix/main.cf.debian"),
    ("main_cf", "/usr/share/postfix/main.cf.dist"),
    ("master_cf", "/usr/share/postfix/master.cf.dist"),
    (
        "master_cf",
        concat!(env!("CARGO_MANIFEST_DIR"), "/master.cf.example"),
    ),
];

/// The inputs from which others are made, in a fixed order.
///
/// # Errors
/// There is none, or one cannot be read.
pub fn seeds(target: &str) -> Result<Vec<Input>, String> {
    let mut seeds = directory(&own().join("seeds").join(target))?;
    for (_, file) in ELSEWHERE.iter().filter(|(of, _)| *of == target) {
        if Path::new(file).exists() {
            seeds.push(input(file.as_ref())?);
        }
    }
    if seeds.is_empty() {
        Err("no seeds".into())
    } else {
        Ok(seeds)
    }
}

/// The inputs that have failed once.
///
/// # Errors
/// An input cannot be read.
pub fn regressions(target: &str) -> Result<Vec<Input>, String> {
    let of_target = own().join("regressions").join(target);
    if of_target.exists() {
        directory(&of_target)
    } else {
        Ok(Vec::new())
    }
}

/// The target's dictionary in libFuzzer's format: one word in quotation marks per line.
///
/// # Errors
/// The dictionary cannot be read.
pub fn words(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let file = own().join("words").join(format!("{target}.dict"));
    let Input { name, bytes } = input(&file)?;
    let text = String::from_utf8(bytes).map_err(|problem| format!("{name}: {problem}"))?;
    let word = |line: &str| unquoted(line).ok_or_else(|| format!("{name}: {line}"));
    text.lines().map(word).collect()
}

/// A word without quotation marks, with `\xHH`, `\"` and `\\` replaced by the bytes that they stand
/// for.
fn unquoted(line: &str) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix('"')?.strip_suffix('"')?;
    let mut word = Vec::new();
    while let Some((literal, after)) = rest.split_once('\\') {
        word.extend(literal.bytes());
        let length = if after.starts_with('x') { 3 } else { 1 };
        let (escape, after) = after.split_at_checked(length)?;
        word.push(match escape.strip_prefix('x') {
            Some(digits) => u8::from_str_radix(digits, 16).ok()?,
            None => escape.bytes().next()?,
        });
        rest = after;
    }
    word.extend(rest.bytes());
    Some(word)
}

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn directory(path: &Path) -> Result<Vec<Input>, String> {
    let problem = |problem| format!("{}: {problem}", path.display());
    let entries = fs::read_dir(path).map_err(problem)?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(problem)?;
    files.sort_unstable();
    files.iter().map(|file| input(file)).collect()
}

fn input(file: &Path) -> Result<Input, String> {
    let name = file.display().to_string();
    let bytes = fs::read(file).map_err(|problem| format!("{name}: {problem}"))?;
    Ok(Input { name, bytes })
}
