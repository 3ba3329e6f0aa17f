//! The manual and the documents name what there is: each log line has an entry in master-log(7), and
//! each file, command, setting and manual page in a document exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{files, is_test, root, told, without_tests};

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect(name)
}

/// The text of a page as it is shown, with single spaces.
fn shown(page: &str) -> String {
    let is_macro = |word: &str| word.len() == 3 && word.starts_with('.');
    let lines = page.lines().map(|line| match line.split_once(' ') {
        Some((first, rest)) if is_macro(first) => rest,
        _ => line,
    });
    let text = lines.collect::<Vec<_>>().join(" ");
    let text = text.replace("\\(dq", "\"").replace("\\&", "");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The string literals of a piece of code, without those in comments.
fn literals(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, from) = rest.split_at(at);
        if from.starts_with("//") {
            rest = from.find('\n').map_or("", |end| &from[end..]);
        } else if let Some(quote) = ["'\"'", "'\\''", "b'\"'"]
            .iter()
            .find(|q| from.starts_with(**q))
        {
            rest = &from[quote.len()..];
        } else if let Some(text) = from.strip_prefix('"') {
            let mut escaped = false;
            let is_end = |c: char| {
                let end = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                end
            };
            let end = text.find(is_end).expect("the end of a literal");
            // What only a developer sees is no log line.
            if !before.trim_end().ends_with("expect(") {
                found.push(text[..end].to_owned());
            }
            rest = &text[end + 1..];
        } else {
            rest = &from[1..];
        }
    }
    found
}

/// For each line that a literal writes, the longest part without a value in it.
fn fixed_parts(literal: &str) -> Vec<String> {
    // A line of source that goes on.
    let mut lines = literal.split("\\\n");
    let mut text = lines.next().unwrap_or("").to_owned();
    lines.for_each(|line| text.push_str(line.trim_start()));
    let text = text.replace("\\\"", "\"");
    let longest = |line: &str| {
        let parts = line.split(['{', '}']).step_by(2);
        parts.max_by_key(|part| part.len()).unwrap_or("").to_owned()
    };
    // Advice at the end of a line explains itself.
    let lines = text
        .split("\\n")
        .filter(|line| !line.starts_with([':', ';']));
    lines.map(longest).collect()
}

/// Where the texts of log lines are.
const LOGGING: [&str; 4] = ["src/policy/record", "src/runtime", "src/start", "src/log"];

/// Texts that are for the service manager, or for this program only.
const ELSEWHERE: [&str; 3] = [
    ", but the last reload failed: see the log",
    "not looked up yet",
    "a listener of the service manager",
];

/// mandoc(1) does not complain about these: `.Xr a 8 , b 8` shows `a(8), b 8`, and the parenthesis of
/// `.It Fl a Pq b , Fl c` ends at the end of the line.
#[test]
fn macros_of_the_manuals_reach_as_far_as_they_are_meant_to() {
    let mut wrong = Vec::new();
    let pages = fs::read_dir(root().join("man")).unwrap();
    for path in pages.map(|entry| entry.unwrap().path()) {
        let (page, text) = (path.display(), fs::read_to_string(&path).unwrap());
        for line in text.lines().filter(|line| line.starts_with('.')) {
            let words: Vec<&str> = line.trim_start_matches('.').split(' ').collect();
            let is_section = |word: &str| matches!(word, "1" | "5" | "7" | "8");
            let is_without_mark =
                |part: &[&str]| part[0] != "Xr" && part[1].len() > 1 && is_section(part[2]);
            let has_reference = words.contains(&"Xr") && words.windows(3).any(is_without_mark);
            let has_parenthesis = line
                .split_once(" Pq ")
                .is_some_and(|(_, rest)| rest.contains(" , Fl "));
            if has_reference || has_parenthesis {
                wrong.push(format!("{page}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_log_line_is_in_the_manual() {
    let page = shown(&read("man/master-log.7"));
    let mut missing = Vec::new();
    for place in LOGGING {
        for (path, text) in files(&root().join(place)) {
            if is_test(&path) {
                continue;
            }
            let literals = literals(without_tests(&text));
            for part in literals.iter().flat_map(|literal| fixed_parts(literal)) {
                let words: Vec<&str> = part.split_whitespace().collect();
                let Some(start) = words.get(..4) else {
                    continue;
                };
                let is_elsewhere = ELSEWHERE.contains(&part.as_str());
                if !is_elsewhere && !page.contains(&start.join(" ")) {
                    missing.push(format!("{}: {part}", told(&path)));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in man/master-log.7:\n{}",
        missing.join("\n")
    );
}

/// The names in a page's list items with one of these macros.
fn items(page: &str, macros: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in page.lines() {
        let rest = macros.iter().find_map(|name| line.strip_prefix(name));
        let words = rest.into_iter().flat_map(|rest| rest.split([' ', ',']));
        let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
        names.extend(words.filter(is_name).map(str::to_owned));
    }
    names
}

/// The documents, with their text.
fn documents() -> Vec<(String, String)> {
    let mut names: Vec<String> = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "tests/README.md",
    ]
    .map(str::to_owned)
    .into();
    for (directory, name) in [("docs", ""), ("contrib", ""), ("contrib", "/README.md")] {
        for entry in fs::read_dir(root().join(directory)).unwrap() {
            let entry = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("{directory}/{entry}{name}");
            if path.ends_with(".md") && root().join(&path).is_file() {
                names.push(path);
            }
        }
    }
    names.sort();
    names
        .into_iter()
        .map(|name| (name.clone(), read(&name)))
        .collect()
}

/// What a document shows as code: in backquotes, or in a block; a line each. The second is the block's
/// language.
fn code(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&block, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => block = Some(language.to_owned()),
            (Some(_), Some(_)) => block = None,
            (Some(language), None) => found.push((line.to_owned(), language.clone())),
            (None, None) => {
                let spans = line.split('`').skip(1).step_by(2);
                found.extend(spans.map(|span| (span.to_owned(), String::new())));
            }
        }
    }
    found
}

/// The directories of the source that documents name.
const PLACES: [&str; 12] = [
    "src/",
    "tests/",
    "man/",
    "docs/",
    "contrib/",
    "services/",
    "ctl/",
    "statusd/",
    "benches/",
    "debian/",
    "exec/",
    "fuzz/",
];

/// Files that a command makes.
const MADE: [&str; 1] = ["fuzz/corpus/"];

/// The directory of Postfix's master, in Postfix's source.
const POSTFIX: &str = "src/master";

/// The words of code that are paths in the source and do not exist.
fn missing_paths(code: &str) -> Vec<String> {
    let ends = |c: char| c.is_whitespace() || "\"'(),;<>=".contains(c);
    let words = code
        .split(ends)
        .map(|word| word.trim_end_matches(['.', ':', '/']));
    let mut missing: Vec<String> = words.map(str::to_owned).collect();
    missing.retain(|word| {
        let is_named = PLACES.iter().any(|place| word.starts_with(place));
        let is_made = MADE.iter().any(|made| word.starts_with(made));
        let is_pattern = word.contains(['*', '{', '[', '$']);
        is_named && !is_made && !is_pattern && word != POSTFIX && !root().join(word).exists()
    });
    missing
}

/// The documents that name files of Rust as they are below `src`.
const BELOW_SRC: [&str; 2] = ["docs/core.md", "docs/contributor.md"];

/// The files of Rust in a piece of code that are not there, at the top or below `src`.
fn missing_sources(code: &str) -> Vec<String> {
    let words = code.split(|c: char| c.is_whitespace() || "(),;:".contains(c));
    let mut missing: Vec<String> = words.map(str::to_owned).collect();
    missing.retain(|word| {
        let is_path = word.ends_with(".rs") && word.contains('/');
        is_path && !root().join(word).exists() && !root().join("src").join(word).exists()
    });
    missing
}

/// Whether a file of Rust has the type, or an `impl` of it, and in it a function, field or variant.
fn has_member(text: &str, name: &str, member: &str) -> bool {
    let is_named = |line: &str, word: &str| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|part| part == word)
    };
    let is_home = |line: &str| {
        let line = line.trim_start().trim_start_matches("pub ");
        let begins = ["struct ", "enum ", "impl", "pub(", "trait "];
        begins.iter().any(|begin| line.starts_with(begin)) && is_named(line, name)
    };
    let has = |line: &str| {
        let line = line.trim_start();
        !line.starts_with("//") && is_named(line, member)
    };
    // This is quick, and mostly enough.
    let may_have = text.contains(name) && text.contains(member);
    may_have && text.lines().any(is_home) && text.lines().any(has)
}

/// The members of types, `Type::member`, in a piece of code that no source has, and functions that no
/// source names. A word with a dot is the name of a file.
fn missing_members(code: &str, sources: &[String]) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || "_:.".contains(c);
    let words = code.split(|c| !is_part(c));
    let words = words.map(|word| word.trim_matches(['.', ':']).to_owned());
    let mut missing: Vec<String> = words.filter(|word| !word.contains('.')).collect();
    missing.retain(|word| match word.split_once("::") {
        Some((name, member)) if name.starts_with(char::is_uppercase) => {
            !sources.iter().any(|text| has_member(text, name, member))
        }
        Some(_) => false,
        None => {
            let is_function = word.contains('_') && word.chars().all(|c| !c.is_uppercase());
            is_function && !sources.iter().any(|text| text.contains(word.as_str()))
        }
    });
    missing
}

/// The subcommand of `masterctl` in a piece of code, if it has one.
fn subcommand(code: &str) -> Option<&str> {
    let mut words = code.split("masterctl ").nth(1)?.split_whitespace();
    loop {
        match words.next()? {
            "-c" | "--config" | "--queue" => drop(words.next()),
            option if option.starts_with('-') => {}
            word => return Some(word.trim_matches([',', ';', ')', '.'])),
        }
    }
}

/// The manual pages in a text, `name(section)`, which are this program's.
fn pages(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices('(') {
        let section = text[at + 1..].split_once(')').map(|(section, _)| section);
        let start = text[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let name = &text[start.map_or(0, |start| start + 1)..at];
        let is_ours = name.starts_with("master") || name == "statusd";
        if let Some(section @ ("1" | "5" | "7" | "8")) = section.filter(|_| is_ours) {
            found.push(format!("man/{name}.{section}"));
        }
    }
    found
}

#[test]
fn what_documents_name_exists() {
    let commands = items(&read("man/masterctl.1"), &[".It Cm "]);
    let settings = items(&read("man/master.5"), &[".It Cm ", ".It Va "]);
    let rooms = ["src", "exec", "tests"].map(|room| files(&root().join(room)));
    let sources: Vec<String> = rooms.into_iter().flatten().map(|(_, text)| text).collect();
    let mut wrong = Vec::new();
    for (name, text) in documents() {
        let directory = root().join(&name).parent().map(Path::to_owned).unwrap();
        let mut complain = |what: &str| wrong.push(format!("{name}: {what}"));
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            if !link.starts_with("http") && !directory.join(link).exists() {
                complain(&format!("link to {link}"));
            }
        }
        for page in pages(&text) {
            if !root().join(&page).exists() {
                complain(&page);
            }
        }
        for (code, language) in code(&text) {
            missing_paths(&code).iter().for_each(|path| complain(path));
            if BELOW_SRC.contains(&name.as_str()) {
                missing_sources(&code)
                    .iter()
                    .chain(&missing_members(&code, &sources))
                    .for_each(|name| complain(name));
            }
            // The arguments of `masterctl` itself, such as `--help`, are no subcommand.
            let command = subcommand(&code).filter(|command| !command.contains(['/', '|']));
            if let Some(command) = command.filter(|command| !commands.contains(*command)) {
                complain(&format!("masterctl {command}"));
            }
            let setting = code.split_once(" = ").map(|(key, _)| key.trim());
            if let Some(key) = setting.filter(|key| language == "toml" && !settings.contains(*key))
            {
                complain(&format!("the setting {key}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "named, and not there:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_tests_that_the_page_on_security_names_exist() {
    let rooms = ["src", "tests", "services", "statusd", "ctl"];
    let sources = rooms.iter().flat_map(|room| files(&root().join(room)));
    let sources: Vec<String> = sources.map(|(_, text)| text).collect();
    let is_test = |name: &str| {
        let definition = match name.strip_suffix("...") {
            Some(start) => format!("fn {start}"),
            None if name.ends_with('_') => format!("fn {name}"),
            None => format!("fn {name}()"),
        };
        sources.iter().any(|text| text.contains(&definition))
    };
    let mut missing: Vec<String> = code(&read("SECURITY.md"))
        .into_iter()
        .map(|(code, _)| code)
        .collect();
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
    missing.retain(|name| {
        let is_name =
            name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(is_word);
        is_name && name.matches('_').count() >= 3 && !is_test(name)
    });
    assert!(missing.is_empty(), "no such test: {missing:?}");
}
