//! Many clients, each of which records its result.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::programs::example;
use testkit::vitals::Vitals;

/// The clients' results.
#[derive(Debug, Default)]
pub struct Tally {
    pub served: u32,
    /// Clients that were disconnected by the child that had accepted them, by its process ID.
    pub by_child: BTreeMap<i32, u32>,
    /// Clients that were disconnected before a child sent its process ID, each with the reason.
    pub before_greeting: Vec<String>,
}

impl Tally {
    /// The number of clients that were not served.
    pub fn let_down(&self) -> u32 {
        self.by_child.values().sum::<u32>() + self.before_greeting.len() as u32
    }

    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.before_greeting.extend(other.before_greeting);
        for (child, number) in other.by_child {
            *self.by_child.entry(child).or_default() += number;
        }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Served => self.served += 1,
            Outcome::LetDownBy(child) => *self.by_child.entry(child).or_default() += 1,
            Outcome::Lost(why) => self.before_greeting.push(why),
        }
    }
}

enum Outcome {
    Served,
    LetDownBy(i32),
    Lost(String),
}

/// A service whose children serve without instructions, by its columns from the type to the process
/// limit.
pub fn add_service(postfix: &mut Instance, name: &str, columns: &str) {
    postfix.install(&example("puppet"), "server");
    postfix.service(&format!("{name} {columns} server serve"));
}

/// Reloads, so that all children end, and returns the master's vitals without children.
#[track_caller]
pub fn vitals_without_children(postfix: &mut Instance) -> Vitals {
    postfix.reload();
    until(SOON, "the children's end", || postfix.children().is_empty());
    Vitals::of(postfix)
}

/// Clients that connect one after the other, at all addresses in parallel.
pub struct Crowd {
    addresses: Vec<String>,
    /// The number of clients in all.
    size: AtomicU32,
    come: AtomicU32,
}

impl Crowd {
    pub fn new(addresses: &[&str], size: u32) -> Self {
        Self {
            addresses: addresses
                .iter()
                .map(|&address| address.to_owned())
                .collect(),
            size: AtomicU32::new(size),
            come: AtomicU32::new(0),
        }
    }

    /// A crowd that continues until it is [ended](Self::end).
    pub fn endless(addresses: &[&str]) -> Self {
        Self::new(addresses, u32::MAX)
    }

    /// Stops further clients.
    pub fn end(&self) {
        self.size.store(0, Ordering::Relaxed);
    }

    /// The number of clients so far.
    pub fn come(&self) -> u32 {
        self.come.load(Ordering::Relaxed)
    }

    /// Whether all clients have connected.
    pub fn is_over(&self) -> bool {
        self.come() >= self.size.load(Ordering::Relaxed)
    }

    /// Runs all clients while `meanwhile` runs, and returns their results.
    pub fn visit(&self, meanwhile: impl FnOnce()) -> Tally {
        thread::scope(|scope| {
            let addresses = self.addresses.iter();
            let threads: Vec<_> = addresses
                .map(|address| scope.spawn(move || self.keep_coming(address)))
                .collect();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(meanwhile)) {
                // The scope waits for the clients.
                self.end();
                resume_unwind(panic);
            }
            let mut tally = Tally::default();
            for thread in threads {
                tally.add(thread.join().expect("clients"));
            }
            tally
        })
    }

    fn keep_coming(&self, address: &str) -> Tally {
        let mut tally = Tally::default();
        while self.come.fetch_add(1, Ordering::Relaxed) < self.size.load(Ordering::Relaxed) {
            tally.count(visit(address));
        }
        tally
    }
}

fn visit(address: &str) -> Outcome {
    let mut client = match Client::try_connect(address) {
        Ok(client) => client,
        Err(why) => return Outcome::Lost(format!("connect: {why}")),
    };
    let child = match client.try_line() {
        Ok(line) => match line.parse() {
            Ok(child) => child,
            Err(_) => return Outcome::Lost(format!("the child says {line:?}")),
        },
        Err(why) => return Outcome::Lost(format!("no child: {why}")),
    };
    if client.try_say("").is_err() {
        return Outcome::LetDownBy(child);
    }
    match client.try_line() {
        Ok(line) if line == "done" => Outcome::Served,
        _ => Outcome::LetDownBy(child),
    }
}
