//! Many clients, each of which knows what became of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use testkit::client::Client;
use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::programs::example;
use testkit::vitals::Vitals;

/// What became of the clients.
#[derive(Debug, Default)]
pub struct Tally {
    pub served: u32,
    /// Those that were let down in the middle, by the child that had taken them.
    pub by_child: BTreeMap<i32, u32>,
    /// Those that were let down before a child said who it is, each with the reason.
    pub by_nobody: Vec<String>,
}

impl Tally {
    /// How many were not served.
    pub fn let_down(&self) -> u32 {
        self.by_child.values().sum::<u32>() + self.by_nobody.len() as u32
    }

    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.by_nobody.extend(other.by_nobody);
        for (child, number) in other.by_child {
            *self.by_child.entry(child).or_default() += number;
        }
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Served => self.served += 1,
            Outcome::LetDownBy(child) => *self.by_child.entry(child).or_default() += 1,
            Outcome::Lost(why) => self.by_nobody.push(why),
        }
    }
}

enum Outcome {
    Served,
    LetDownBy(i32),
    Lost(String),
}

/// A service whose children serve for themselves, by its columns from the type to the process
/// limit.
pub fn add_service(postfix: &mut Instance, name: &str, columns: &str) {
    postfix.install(&example("puppet"), "server");
    postfix.service(&format!("{name} {columns} server serve"));
}

/// Has a reload end the children, and tells what the master has without them.
#[track_caller]
pub fn vitals_without_children(postfix: &mut Instance) -> Vitals {
    postfix.reload();
    until(SOON, "the children's end", || postfix.children().is_empty());
    Vitals::of(postfix)
}

/// Clients that come one after the other, as many at once as there are addresses.
pub struct Crowd {
    addresses: Vec<String>,
    /// How many come in all.
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

    /// A crowd that comes until it is [ended](Self::end).
    pub fn endless(addresses: &[&str]) -> Self {
        Self::new(addresses, u32::MAX)
    }

    /// Lets no more of them come.
    pub fn end(&self) {
        self.size.store(0, Ordering::Relaxed);
    }

    /// How many have come so far.
    pub fn come(&self) -> u32 {
        self.come.load(Ordering::Relaxed)
    }

    /// Whether all have come.
    pub fn is_over(&self) -> bool {
        self.come() >= self.size.load(Ordering::Relaxed)
    }

    /// Lets all of them come while `meanwhile` goes on, and tells what became of them.
    pub fn visit(&self, meanwhile: impl FnOnce()) -> Tally {
        thread::scope(|scope| {
            let addresses = self.addresses.iter();
            let threads: Vec<_> = addresses
                .map(|address| scope.spawn(move || self.keep_coming(address)))
                .collect();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(meanwhile)) {
                // The scope waits for them.
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
