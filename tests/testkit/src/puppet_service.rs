//! A service whose children are puppets.

use std::time::Duration;

use crate::client::Client;
use crate::instance::Instance;
use crate::puppet::{Puppet, Puppets};

/// How long to wait for something that must not happen. Too short a time can hide a failure, but
/// never causes one.
const PAUSE: Duration = Duration::from_millis(200);

/// A service whose children are puppets.
pub struct PuppetService {
    name: String,
    /// The address for its clients.
    pub address: String,
    puppets: Puppets,
}

impl PuppetService {
    /// Adds a service to the table, with these columns from the type to the process limit.
    #[track_caller]
    pub fn add(postfix: &mut Instance, name: &str, columns: &str) -> Self {
        let words: Vec<&str> = columns.split_whitespace().collect();
        assert_eq!(words.len(), 6, "columns from type to maxproc: {columns}");
        let service = Self {
            name: name.to_owned(),
            address: match words[0] {
                "inet" => name.to_owned(),
                _ => {
                    let class = if words[1] == "n" { "public" } else { "private" };
                    postfix.socket(class, name).display().to_string()
                }
            },
            puppets: Puppets::new(postfix, &format!("{}.{}", words[0], name.replace('/', "."))),
        };
        service.set(postfix, columns);
        service
    }

    /// Changes the service's columns.
    pub fn set(&self, postfix: &mut Instance, columns: &str) {
        self.set_command(postfix, columns, "puppet");
    }

    /// Changes the service's columns and its command, which must be a puppet, too. Arguments may
    /// follow the command.
    pub fn set_command(&self, postfix: &mut Instance, columns: &str, command: &str) {
        let (name, arguments) = (&self.name, self.puppets.arguments());
        postfix.service(&format!("{name} {columns} {command} {arguments}"));
    }

    /// The arguments that make a command one of these puppets.
    pub fn arguments(&self) -> String {
        self.puppets.arguments()
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// Waits for the next child.
    #[track_caller]
    pub fn next(&self) -> Puppet {
        self.puppets.next()
    }

    /// Waits for the next child; `None` if none is started within `limit`.
    pub fn next_within(&self, limit: Duration) -> Option<Puppet> {
        self.puppets.next_within(limit)
    }

    /// Connects a client. Returns it and the new child that serves it.
    #[track_caller]
    pub fn serve(&self) -> (Client, Puppet) {
        let client = self.connect();
        let mut puppet = self.next();
        puppet.take_client();
        (client, puppet)
    }

    /// Serves this many clients at a time, each by a new child that leaves afterwards.
    #[track_caller]
    pub fn serve_and_exit(&self, children: usize) {
        let served: Vec<_> = (0..children).map(|_| self.serve()).collect();
        served.into_iter().for_each(|(_, child)| child.exit(0));
    }

    /// Whether the master starts a child, in tests that allow both.
    pub fn starts_a_child(&self) -> bool {
        // Longer than usual, because neither answer may be wrong.
        self.next_within(10 * PAUSE).is_some()
    }

    /// Asserts that the master starts no child.
    #[track_caller]
    pub fn expect_no_child(&self) {
        let surplus = self.next_within(PAUSE);
        assert!(surplus.is_none(), "a child that is not needed");
    }
}

/// A running master with one service, with these columns from type to process limit. Its name is
/// `a`, or the instance's own address.
#[track_caller]
pub fn one_service(columns: &str) -> (Instance, PuppetService) {
    let mut postfix = Instance::bare();
    let name = if columns.starts_with("inet") {
        postfix.address()
    } else {
        "a".to_owned()
    };
    let service = PuppetService::add(&mut postfix, &name, columns);
    postfix.start();
    (postfix, service)
}
