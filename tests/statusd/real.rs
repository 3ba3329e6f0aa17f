//! A stand-alone master that runs statusd, which shows this master.

use std::ops::{Deref, DerefMut};

use testkit::ports::Port;
use testkit::programs::statusd;
use testkit::standalone::Standalone;

use crate::site::Site;

pub struct Real {
    standalone: Standalone,
    address: String,
    _port: Option<Port>,
}

impl Real {
    /// On a port of its own, run by the user of the tests.
    pub fn new() -> Self {
        let port = Port::reserve();
        Self {
            address: format!("127.0.0.1:{port}"),
            _port: Some(port),
            ..Self::at(Standalone::new(), "")
        }
    }

    /// On an address in its own network.
    pub fn at(standalone: Standalone, address: &str) -> Self {
        standalone.install(&statusd());
        Self {
            standalone,
            address: address.to_owned(),
            _port: None,
        }
    }

    /// statusd's line in the table: one process, and a wake-up so that it has data from the start.
    pub fn line(&self) -> String {
        format!("{} inet n - - 60 1 statusd\n", self.address)
    }

    /// Writes `master.toml`: this text, and the test's own directories.
    pub fn configure(&mut self, toml: &str) -> &mut Self {
        let (queue, data) = (self.queue(), self.path().join("data"));
        self.write_toml(&format!(
            "queue_directory = \"{}\"\ndata_directory = \"{}\"\nmail_owner = \"nobody\"\n{toml}",
            queue.display(),
            data.display()
        ));
        self
    }

    /// Writes the table: these services, and statusd.
    pub fn write(&mut self, services: &str) -> &mut Self {
        let table = format!("{services}{}", self.line());
        self.standalone.write_table(&table);
        self
    }
}

impl Site for Real {
    fn address(&self) -> String {
        self.address.clone()
    }
}

impl Deref for Real {
    type Target = Standalone;

    fn deref(&self) -> &Standalone {
        &self.standalone
    }
}

impl DerefMut for Real {
    fn deref_mut(&mut self) -> &mut Standalone {
        &mut self.standalone
    }
}
