//! A master that runs statusd, which shows a fake master.

use std::ops::{Deref, DerefMut};

use master::status::Document;
use testkit::fake_master::FakeMaster;
use testkit::instance::Instance;
use testkit::ports::Port;
use testkit::programs::statusd;

use crate::site::Site;

pub struct Stage {
    instance: Instance,
    port: Port,
    pub master: FakeMaster,
}

impl Stage {
    pub fn new(document: &Document) -> Self {
        Self::with(document, "")
    }

    /// `options` are statusd's.
    pub fn with(document: &Document, options: &str) -> Self {
        let instance = Instance::with_postlogd();
        let socket = instance.path().join("told");
        let mut stage = Self {
            master: FakeMaster::new(&socket, document),
            instance,
            port: Port::reserve(),
        };
        stage.install(&statusd(), "statusd");
        let line = format!(
            "{} inet n y n - 1 statusd -o statusd_socket={} {options}",
            stage.address(),
            socket.display()
        );
        stage.service(&line);
        stage.start();
        stage
    }
}

impl Site for Stage {
    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Deref for Stage {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.instance
    }
}
