//! Rules of the project that the compiler does not enforce.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/manual.rs"]
mod manual;

/// Each module of the crate, and the modules that its code may use. `main` and tests are exempt.
const ROOMS: [(&str, &[&str]); 16] = [
    ("protocol", &[]),
    ("sandbox", &[]),
    ("errors", &[]),
    ("groups", &["errors", "sys"]),
    ("config", &["groups", "protocol", "sandbox"]),
    ("policy", &["config", "errors", "protocol"]),
    ("sys", &["protocol"]),
    ("files", &["config", "errors", "sys"]),
    ("log", &["errors", "sys"]),
    ("options", &[]),
    ("output", &["errors"]),
    ("status", &["config"]),
    ("control", &["config"]),
    (
        "upgrade",
        &["config", "files", "groups", "log", "policy", "protocol"],
    ),
    (
        "runtime",
        &[
            "config", "control", "errors", "files", "groups", "log", "policy", "protocol",
            "sandbox", "status", "sys", "upgrade",
        ],
    ),
    (
        "start",
        &[
            "config", "errors", "files", "log", "options", "output", "runtime", "sandbox", "sys",
            "upgrade",
        ],
    ),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory, and the file of the same name beside it, with their text.
fn files(of: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let single = of.with_extension("rs");
    if single.is_file() {
        found.push((single.clone(), fs::read_to_string(single).unwrap()));
    }
    let Ok(entries) = fs::read_dir(of) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    found
}

/// Whether a file contains only tests: `tests.rs`, or anything below `tests/`.
fn is_test(path: &Path) -> bool {
    let path = path.strip_prefix(root()).unwrap_or(path).with_extension("");
    path.components().any(|part| part.as_os_str() == "tests")
}

/// A file's text without comments.
fn code(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

/// Fails when a module's code, without its tests, contains any of these names.
fn assert_does_not_name(room: &str, outside: &[&str]) {
    for (path, text) in files(&root().join("src").join(room)) {
        if is_test(&path) {
            continue;
        }
        // The extension traits for strings give no access to the system.
        let code = code(&text).replace("std::os::unix::ffi::", "");
        for what in outside {
            assert!(!code.contains(what), "{}: {what}", path.display());
        }
    }
}

/// Names that give access to the system, the clock or the terminal.
const OUTSIDE: [&str; 12] = [
    "nix::",
    "libc::",
    "epoll::",
    "std::os::",
    "std::fs",
    "std::process",
    "std::env",
    "std::thread",
    "Instant",
    "SystemTime",
    "println!",
    "OwnedFd",
];

/// The modules that a piece of code uses: `crate::MODULE`, also in `use crate::{MODULE, ..}`.
fn named(code: &str) -> Vec<String> {
    let words = |text: &str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let mut rooms = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => rooms.push(words(after)),
            Some(list) => {
                let list = list.split('}').next().unwrap_or(list);
                rooms.extend(list.split(',').map(|item| words(item.trim())));
            }
        }
    }
    rooms
}

#[test]
fn dependencies_go_one_way() {
    let known: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let mut wrong = Vec::new();
    for (room, may_name) in ROOMS {
        let sources = files(&root().join("src").join(room));
        assert!(!sources.is_empty(), "the room {room} is empty");
        for (path, text) in sources {
            for other in named(&code(&text)) {
                let allowed = other == room || may_name.contains(&other.as_str());
                if known.contains(&other.as_str()) && !allowed {
                    wrong.push(format!("{}: {room} names {other}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The directories with Rust code of each package.
const PACKAGES: [&str; 3] = ["src", "exec", "services"];

/// The dependencies of the privileged binary.
const DEPENDENCIES: [&str; 12] = [
    "anyhow",
    "lexopt",
    "libc",
    "nix",
    "polling",
    "serde",
    "serde_derive",
    "serde_json",
    "strsim",
    "syscalls",
    "syslog",
    "toml",
];

#[test]
fn services_use_of_the_master_what_children_share_with_it() {
    for (path, text) in files(&root().join("services")) {
        for after in code(&text).split("master::").skip(1) {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_');
            let room = &after[..end.unwrap_or(after.len())];
            assert!(
                ["config", "errors", "files", "log", "output", "protocol"].contains(&room),
                "{}: {room}",
                path.display()
            );
        }
    }
}

#[test]
fn the_privileged_program_has_no_other_dependencies() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let names: Vec<&String> = manifest["dependencies"]
        .as_table()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(names, DEPENDENCIES);
}

#[test]
fn each_dependency_of_the_privileged_program_has_a_reason() {
    let text = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let (_, table) = text.split_once("| crate | reason |").unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let crates: Vec<&str> = rows.filter_map(|row| row.split('|').nth(1)).collect();
    for name in DEPENDENCIES {
        let cell = format!("`{name}`");
        assert!(crates.iter().any(|crates| crates.contains(&cell)), "{name}");
    }
}

#[test]
fn every_source_file_is_in_a_room() {
    let known: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            known.contains(&name) || ["lib", "main"].contains(&name),
            "{} is in no room of tests/tidy.rs",
            path.display()
        );
    }
}

#[test]
fn only_sys_has_unsafe_code() {
    for package in PACKAGES {
        for (path, text) in files(&root().join(package)) {
            let inside = path.strip_prefix(root().join(package)).unwrap();
            if inside.starts_with("sys") || inside == Path::new("src/sys.rs") {
                continue;
            }
            let code = code(&text).replace("(unsafe_code)]", "");
            assert!(!code.contains("unsafe"), "{}: unsafe", path.display());
        }
    }
}

#[test]
fn policy_and_configuration_do_not_reach_for_the_outside_world() {
    assert_does_not_name("config", &OUTSIDE);
    assert_does_not_name("policy", &OUTSIDE);
    assert_does_not_name("policy", &["std::net"]);
}

#[test]
fn nothing_is_left_for_later() {
    let later = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!"),
        "unimplemented!",
    ];
    for directory in PACKAGES.into_iter().chain(["tests"]) {
        for (path, text) in files(&root().join(directory)) {
            if path.ends_with("tidy.rs") {
                continue;
            }
            for what in later {
                assert!(!text.contains(what), "{}: {what}", path.display());
            }
        }
    }
}

#[test]
fn a_file_opens_with_what_it_is_for() {
    for package in PACKAGES {
        for (path, text) in files(&root().join(package)) {
            assert!(
                is_test(&path) || text.starts_with("//!"),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn the_readme_shows_the_examples_as_they_are() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let readme = read("README.md");
    let rust = read("services/examples/shout.rs");
    let (_, rust) = rust.split_once('\n').unwrap();
    for (language, code) in [
        ("python", read("services/examples/minimal.py").as_str()),
        ("rust", rust),
    ] {
        assert!(
            readme.contains(&format!("```{language}\n{code}```\n")),
            "{language}"
        );
    }
}

/// The modules of the core, whose files and functions must be short.
const CORE: [&str; 4] = ["policy", "runtime", "sys", "protocol"];
/// Maximum lines of a file, without its tests.
const FILE: usize = 500;
/// Maximum lines of a function, from its name to its last brace.
const FUNCTION: usize = 70;

/// Words of a former private vocabulary.
const PRIVATE: [&str; 9] = [
    "chore", "visitor", "door", "farewell", "bury", "gossip", "seldom", "care", "troupe",
];

/// A path relative to the repository.
fn told(path: &Path) -> String {
    let below = path.strip_prefix(root()).unwrap_or(path);
    below.display().to_string()
}

/// A file's text up to its tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {")
        .map_or(text, |tests| &text[..tests])
}

/// The functions of a file, each with its number of lines. With rustfmt, the last brace has the
/// indentation of the beginning.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(keyword) = words.iter().position(|word| *word == "fn") else {
            continue;
        };
        let is_start = words[..keyword].iter().all(|word| {
            ["const", "unsafe", "extern", "\"C\"", "async"].contains(word)
                || word.starts_with("pub")
        });
        let name = words.get(keyword + 1).copied().unwrap_or_default();
        // A trait's function may have no body.
        let mut heads = lines[at..].iter().filter_map(|line| line.chars().last());
        let has_body = heads.find(|last| matches!(last, '{' | '}' | ';')) == Some('{');
        let end = lines[at..]
            .iter()
            .position(|other| other.trim_start() == "}" && indent(other) == indent(line));
        if let (true, true, Some(end)) = (is_start, has_body, end) {
            let name = name.split(['(', '<']).next().unwrap_or(name);
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

#[test]
fn files_and_functions_of_the_core_are_short() {
    let mut found = Vec::new();
    for room in CORE {
        for (path, text) in files(&root().join("src").join(room)) {
            if is_test(&path) {
                continue;
            }
            let text = without_tests(&text);
            let lines = text.lines().count();
            if lines > FILE {
                found.push(format!("{}: {lines}", told(&path)));
            }
            let long = functions(text)
                .into_iter()
                .filter(|(_, lines)| *lines > FUNCTION);
            found.extend(long.map(|(name, lines)| format!("{}: {name}: {lines}", told(&path))));
        }
    }
    assert!(found.is_empty(), "lines:\n{}", found.join("\n"));
}

/// The words of a piece of code, with names split into words: `BuryDead` and `bury_dead` have two.
fn words(code: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in code.chars() {
        if !letter.is_ascii_alphabetic() || letter.is_ascii_uppercase() {
            words.push(String::new());
        }
        if letter.is_ascii_alphabetic() {
            let last = words.last_mut().expect("there is one");
            last.push(letter.to_ascii_lowercase());
        }
    }
    words
}

#[test]
fn names_are_the_fields() {
    let mut found = Vec::new();
    for (path, text) in files(&root().join("src")) {
        let count = words(&code(&text))
            .iter()
            .filter(|word| PRIVATE.contains(&word.strip_suffix('s').unwrap_or(word)))
            .count();
        if count > 0 {
            found.push(format!("{}: {count}", told(&path)));
        }
    }
    assert!(found.is_empty(), "private words:\n{}", found.join("\n"));
}

#[test]
fn every_test_of_the_kit_is_registered() {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap();
    for test in manifest["test"].as_array().unwrap() {
        let name = test["name"].as_str().unwrap();
        for (path, text) in files(&root().join("tests").join(name)) {
            // The built-in attribute registers nothing in crates without libtest's harness.
            let mut imports = text
                .split("use testkit::")
                .skip(1)
                .filter_map(|import| import.split(';').next());
            let has_kit = imports.any(|import| words(import).contains(&"test".to_owned()));
            let is_test = |line: &str| line.trim() == "#[test]";
            assert!(
                has_kit || !text.lines().any(is_test),
                "{}: use testkit::test",
                told(&path)
            );
        }
    }
}

#[test]
fn every_file_names_the_same_version() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let workspace = &manifest["workspace"];
    let version = workspace["package"]["version"].as_str().unwrap();
    for library in ["master", "services"] {
        assert_eq!(
            workspace["dependencies"][library]["version"].as_str(),
            Some(version)
        );
    }
    let debian = read("debian/changelog");
    assert!(
        debian.starts_with(&format!("master ({version}) ")),
        "{debian}"
    );
    let changelog = read("CHANGELOG.md");
    let is_release = |line: &&str| line.starts_with("## [") && !line.contains("[Unreleased]");
    let newest = changelog.lines().find(is_release);
    let is_newest = newest.is_some_and(|line| line.starts_with(&format!("## [{version}] - ")));
    assert!(is_newest, "{newest:?}");
}

/// Lines of a mistake with this mark, without it.
fn marked(mistake: &str, mark: char) -> String {
    let lines = mistake.lines().filter_map(|line| line.strip_prefix(mark));
    lines.flat_map(|line| ["\n", line]).collect()
}

#[test]
fn each_mistake_that_a_test_must_notice_can_still_be_made() {
    let text = fs::read_to_string(root().join("tests/mutants/policy.txt")).unwrap();
    for mistake in text.split("\n== ").skip(1) {
        let (title, rest) = mistake.split_once('\n').unwrap();
        let file = rest.lines().next().unwrap();
        let source = fs::read_to_string(root().join(file)).unwrap();
        let before = marked(rest, '-') + "\n";
        let found = format!("\n{source}").matches(&before).count();
        assert_eq!(found, 1, "{file} has the lines of this mistake: {title}");
        assert_ne!(marked(rest, '-'), marked(rest, '+'), "{title}");
    }
}
