//! A master with services whose children tell what they may do: one in Rust, one in Python.

use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use testkit::instance::SOON;
use testkit::standalone::Standalone;
use testkit::{file, programs};

/// The names of the services.
pub const CHILDREN: [&str; 2] = ["rust", "python"];

/// A master, not started yet, that finds the programs.
pub fn stage(mut standalone: Standalone) -> Standalone {
    standalone.unwatched("a service is added that has no sandbox");
    standalone.install(&programs::executor());
    let table: String = CHILDREN
        .map(|name| {
            format!(
                "{name} unix n - n - 5 {}\n",
                program(&standalone, name).display()
            )
        })
        .concat();
    standalone.write_table(&table);
    standalone
}

/// A copy of a service's program, for the table.
pub fn program(standalone: &Standalone, name: &str) -> PathBuf {
    match name {
        "rust" => standalone.install(&programs::example("inside")),
        _ => standalone.install(&file("tests/sandbox/inside.py")),
    }
}

/// Gives both services these settings.
pub fn configure(standalone: &Standalone, settings: &str) {
    let of = |name: &str| standalone.path().join(name).display().to_string();
    let mut toml = String::new();
    if standalone.uid() == 0 {
        let (queue, data) = (standalone.queue(), of("data"));
        toml += &format!(
            "queue_directory = \"{}\"\ndata_directory = \"{data}\"\n",
            queue.display()
        );
    }
    for name in CHILDREN {
        toml += &format!("[service.\"{name}/unix\"]\n{settings}\n");
    }
    standalone.write_toml(&toml);
}

/// A running master whose services have these settings.
pub fn started(settings: &str) -> Standalone {
    start(Standalone::new(), settings)
}

pub fn start(standalone: Standalone, settings: &str) -> Standalone {
    let mut standalone = stage(standalone);
    configure(&standalone, settings);
    standalone.start();
    standalone
}

/// What a child of a service answers.
#[track_caller]
pub fn ask(standalone: &mut Standalone, name: &str, command: &str) -> String {
    let socket = standalone.queue().join("public").join(name);
    let mut stream = UnixStream::connect(socket).expect("a listener");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    writeln!(stream, "{command}").expect("a connection");
    let mut answer = String::new();
    if let Err(error) = stream.read_to_string(&mut answer) {
        panic!("{name}: {command}: {error}: {}", standalone.said());
    }
    answer.trim_end().to_owned()
}

/// The value of a line of a child's /proc/self/status.
#[track_caller]
pub fn status(standalone: &mut Standalone, name: &str, key: &str) -> String {
    let status = ask(standalone, name, "read /proc/self/status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("{key}: {status:?}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
