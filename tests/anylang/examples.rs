//! The programs of `services/examples`, and services that run them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::run;
use testkit::{note, skip, test};

/// The directory of the examples.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("services/examples")
}

/// A child that writes its process ID and then returns each line in capitals.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    pub file: &'static str,
    /// The interpreter or compiler that it needs.
    needs: &'static str,
}

const EXAMPLES: [Example; 3] = [
    Example {
        file: "child.py",
        needs: "/usr/bin/python3",
    },
    Example {
        file: "child.pl",
        needs: "/usr/bin/perl",
    },
    Example {
        file: "child.c",
        needs: "/usr/bin/cc",
    },
];

/// The shortest child: it greets its client and closes the connection.
pub const MINIMAL: Example = Example {
    file: "minimal.py",
    needs: "/usr/bin/python3",
};

/// The child for services of type fifo.
pub const TRIGGERED: Example = Example {
    file: "child.sh",
    needs: "/bin/dash",
};

/// The children for connections whose language is installed.
pub fn examples() -> Vec<Example> {
    can_run(EXAMPLES)
}

/// The same, with the minimal child.
pub fn examples_and_minimal() -> Vec<Example> {
    let [python, perl, c] = EXAMPLES;
    can_run([python, perl, c, MINIMAL])
}

/// The examples whose language is installed; if there is none, the test is skipped.
fn can_run<const N: usize>(examples: [Example; N]) -> Vec<Example> {
    let (found, missing): (Vec<_>, Vec<_>) = examples.into_iter().partition(Example::has_language);
    for example in &missing {
        note(&format!("{} needs {}", example.file, example.needs));
    }
    if found.is_empty() {
        skip("none of the languages is installed");
    }
    found
}

impl Example {
    fn has_language(&self) -> bool {
        Path::new(self.needs).exists()
    }

    /// Skips the test if the child's language is not installed.
    pub fn needs_language(&self) {
        if !self.has_language() {
            skip(&format!("{} needs {}", self.file, self.needs));
        }
    }

    /// The executable file.
    fn program(self) -> PathBuf {
        let source = directory().join(self.file);
        if self.file.ends_with(".c") {
            compiled(&source)
        } else {
            source
        }
    }

    /// Adds a service with this child to the table: the columns from the type to the process limit,
    /// and the child's own arguments.
    pub fn add(self, postfix: &mut Instance, name: &str, columns: &str, arguments: &str) {
        postfix.install(&self.program(), self.file);
        postfix.service(&format!("{name} {columns} {} {arguments}", self.file));
    }
}

/// A C program's executable, built once.
fn compiled(source: &Path) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("child");
        let mut cc = Command::new("/usr/bin/cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-O2", "-o"]);
        run(cc.arg(&program).arg(source), SOON).expect_success();
        program
    };
    BUILT.get_or_init(build).clone()
}

/// A running master with one service, a private socket, whose child is an example.
pub struct Stage {
    pub postfix: Instance,
    pub address: String,
}

impl Stage {
    /// Starts the master, with this process limit and the child's own arguments.
    #[track_caller]
    pub fn new(example: Example, limit: u32, arguments: &str) -> Self {
        let mut postfix = Instance::bare();
        let columns = format!("unix - n n - {limit}");
        example.add(&mut postfix, "a", &columns, arguments);
        postfix.start();
        let address = postfix.socket("private", "a").display().to_string();
        Self { postfix, address }
    }

    /// Connects a client. Returns it and the child that has greeted it.
    #[track_caller]
    pub fn greeted(&self) -> (Client, Process) {
        greeted(&self.address)
    }

    /// Asserts that neither the master nor a child has logged a complaint.
    #[track_caller]
    pub fn expect_no_complaint(&self) {
        expect_no_complaint(&self.postfix);
    }
}

/// Connects a client. Returns it and the child that has greeted it.
#[track_caller]
pub fn greeted(address: &str) -> (Client, Process) {
    let mut client = Client::connect(address);
    let child = read_greeting(&mut client);
    (client, child)
}

/// Reads a greeting and returns the child that sent it.
#[track_caller]
pub fn read_greeting(client: &mut Client) -> Process {
    let greeting = client.line();
    let pid = greeting.strip_prefix("hello from ");
    let pid = pid.unwrap_or_else(|| panic!("a child says {greeting:?}"));
    Process(pid.parse().expect("a process id"))
}

/// Asserts that the child returns a line in capitals.
#[track_caller]
pub fn expect_served(client: &mut Client) {
    client.say("some words");
    assert_eq!(client.line(), "SOME WORDS");
}

/// Asserts that the master has logged no complaint, also none about ended children.
#[track_caller]
pub fn expect_no_complaint(postfix: &Instance) {
    let master = Process(postfix.master_pid());
    let children = format!("/proc/{0}/task/{0}/children", master.0);
    until(SOON, "the master to have nothing to do", || {
        // An ended child is listed until the master has reaped it.
        let listed = fs::read_to_string(&children).unwrap_or_default();
        let mut listed = listed.split_whitespace().flat_map(str::parse);
        !master.runs() || listed.all(|child| Process(child).runs()) && master.is_idle()
    });
    // Children in use are no fault of theirs.
    let full = |line: &String| {
        let advice = "to let more clients in at a time, raise the maxproc column";
        line.contains("has reached its process limit") || line.contains(advice)
    };
    for word in ["warning: ", "status update", "exit status", "killed by"] {
        let mut lines = postfix.log_lines(word);
        lines.retain(|line| !full(line));
        assert_eq!(lines, [""; 0]);
    }
}

/// "each in less than 60 lines, and minimal.py in 25", including comments. The examples for
/// ordered pools are not for beginners and have tests of their own.
#[test]
fn every_example_is_short() {
    let files = fs::read_dir(directory()).expect("the examples");
    let paths = files.map(|file| file.expect("a file").path());
    let is_for_beginners = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("child.") || name == MINIMAL.file
    };
    let mut seen = 0;
    for path in paths.filter(is_for_beginners) {
        let lines = fs::read_to_string(&path).expect("text").lines().count();
        let limit = if path.ends_with(MINIMAL.file) { 25 } else { 59 };
        assert!(lines <= limit, "{path:?} has {lines} lines");
        seen += 1;
    }
    assert_eq!(seen, EXAMPLES.len() + 2, "examples without a test");
}
