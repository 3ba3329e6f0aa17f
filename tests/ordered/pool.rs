//! A master with one ordered pool.

use std::path::Path;
use std::time::Duration;

use testkit::clock::Clock;
use testkit::instance::{Instance, SOON};
use testkit::network::LOOPBACK_2;
use testkit::poll::until;
use testkit::process::Process;
use testkit::programs::service;
use testkit::{file, layout, needs_root, skip};

/// Whether SpamAssassin's module is installed, at the path of Debian's package.
pub fn has_module() -> bool {
    Path::new("/usr/share/perl5/Mail/SpamAssassin/SpamdForkScaling.pm").exists()
}

/// Skips the test if the module is not installed.
pub fn needs_module() {
    needs_root("children change their user");
    if !has_module() {
        skip("needs Debian's package spamassassin");
    }
}

/// Traces system calls, and can slow them down.
pub const STRACE: &str = "/usr/bin/strace";

/// The address of the pool.
#[derive(Clone, Copy)]
enum Endpoint {
    /// The instance's own address.
    Address,
    /// Two addresses.
    Addresses,
    /// A socket of this type in the file system.
    Socket(&'static str),
}

/// A running master with one service.
pub struct Pool {
    pub postfix: Instance,
    pub address: String,
    /// The service's name and type.
    service: String,
    settings: String,
}

impl Pool {
    /// A pool of `max` children that run a program of this repository, with arguments after the
    /// master's own, and with these settings in the service's table.
    pub fn new(max: u32, program: &str, arguments: &str, settings: &str) -> Self {
        let mut pool = Self::stopped(max, program, arguments, settings);
        pool.start();
        pool
    }

    /// The same, not started.
    pub fn stopped(max: u32, program: &str, arguments: &str, settings: &str) -> Self {
        Self::at(Endpoint::Address, max, program, arguments, settings)
    }

    fn at(place: Endpoint, max: u32, program: &str, arguments: &str, settings: &str) -> Self {
        let mut postfix = Instance::bare();
        postfix.set("service_throttle_time", "1s");
        postfix.set("service_kill_time", "1s");
        let name = Path::new(program)
            .file_name()
            .and_then(|name| name.to_str());
        let name = name.expect("a program's name");
        postfix.install(&file(program), name);
        let (service, kind, address) = match place {
            Endpoint::Address => (postfix.address(), "inet", postfix.address()),
            Endpoint::Addresses => {
                postfix.set("inet_interfaces", format!("127.0.0.1, {LOOPBACK_2}"));
                (postfix.port().to_string(), "inet", postfix.address())
            }
            Endpoint::Socket(kind) => {
                let socket = postfix.socket("public", "pool");
                ("pool".to_owned(), kind, socket.display().to_string())
            }
        };
        postfix.service(&format!(
            "{service} {kind} n n n - {max} {name} {arguments}"
        ));
        let mut pool = Self {
            postfix,
            address,
            service: format!("{service}/{kind}"),
            settings: String::new(),
        };
        pool.set(settings);
        pool
    }

    pub fn start(&mut self) {
        self.postfix.start();
    }

    /// Starts the master anew, with a clock that the test turns.
    pub fn restart_with_clock(&mut self) -> Clock {
        self.postfix.stop();
        let clock = Clock::install(&mut self.postfix);
        self.start();
        clock
    }

    /// The example in Perl, with SpamAssassin's module.
    pub fn perl(max: u32, settings: &str) -> Self {
        Self::new(max, "services/examples/ordered.pl", "nobody", settings)
    }

    /// A program of the package `services`.
    pub fn rust(max: u32, program: &str, arguments: &str, settings: &str) -> Self {
        let program = service(program);
        let program = program.to_str().expect("a path that is text");
        Self::new(max, program, arguments, settings)
    }

    /// The example in Rust, on a socket in the file system.
    pub fn local(max: u32, settings: &str) -> Self {
        Self::example_at(Endpoint::Socket("unix"), max, settings)
    }

    /// The same, for clients that other processes pass.
    pub fn pass(max: u32, settings: &str) -> Self {
        Self::example_at(Endpoint::Socket("pass"), max, settings)
    }

    /// The example in Rust, on the instance's port at two addresses.
    pub fn twofold(max: u32, settings: &str) -> Self {
        Self::example_at(Endpoint::Addresses, max, settings)
    }

    fn example_at(place: Endpoint, max: u32, settings: &str) -> Self {
        let program = service("ordered");
        let program = program.to_str().expect("a path that is text");
        let mut pool = Self::at(place, max, program, "", settings);
        pool.start();
        pool
    }

    /// The example in Perl, which violates the protocol in one of `one_in` orders.
    pub fn rogue(kind: &str, one_in: usize, settings: &str) -> Self {
        let example = file("services/examples/ordered.pl");
        let arguments = format!("{} {kind} {one_in} nobody", example.display());
        Self::new(8, "tests/programs/rogue.pl", &arguments, settings)
    }

    /// Changes the settings in the service's table for the next start or reload.
    pub fn set(&mut self, settings: &str) {
        let table = format!("[service.\"{}\"]\n{settings}", self.service);
        self.settings = settings.to_owned();
        layout::replace(&self.postfix.configuration().join("master.toml"), &table);
    }

    /// Reloads the service with other children and other settings.
    pub fn become_of(&mut self, max: u32, command: &str, settings: &str) {
        let line = format!("{} inet n n n - {max} {command}", self.address);
        self.postfix.service(&line);
        self.set(settings);
        let mark = self.postfix.log().len();
        self.postfix.write_configuration();
        self.postfix.hang_up();
        // With clients all the time, the master is never idle.
        self.postfix.wait_for_log_after(mark, "reload done");
    }

    pub fn children(&self) -> Vec<Process> {
        self.postfix.children()
    }

    /// Waits until there are `count` idle children, and the master knows it.
    #[track_caller]
    pub fn wait_for_idle(&self, count: usize) {
        until(SOON, format_args!("{count} idle children"), || {
            let children = self.children();
            let idle = children.iter().filter(|child| child.waits());
            let idle = children.len() == count && idle.count() == count;
            // In this order: the master reads a child's report before it becomes idle itself.
            idle && self.postfix.master_process().is_idle()
        });
    }

    /// A child, selected by `nth`.
    pub fn any_child(&self, nth: usize) -> Option<Process> {
        let mut children = self.children();
        (!children.is_empty()).then(|| children.swap_remove(nth % children.len()))
    }
}

/// Settings of a pool that keeps eight children whatever the load.
pub const HANDFUL: &str = "accept = \"ordered\"\nmin_children = 8\nmax_idle = 8\n";
/// Silent children are detected soon.
pub const IMPATIENT: &str =
    "accept = \"ordered\"\nmin_children = 8\nmax_idle = 8\nreply_timeout = 1\n";
/// Maximum wait of an undisturbed client on a busy machine.
pub const AT_ONCE: Duration = Duration::from_secs(3);
