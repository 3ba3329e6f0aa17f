//! A master with one of the package's programs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use testkit::instance::{Instance, SOON};
use testkit::ports::Port;
use testkit::process::Process;
use testkit::programs::service;
use testkit::under_test;

/// A running master with a program as a service on a port.
pub struct Stage {
    instance: Instance,
    program: &'static str,
    port: Port,
}

impl Stage {
    /// `limit` is the column maxproc; `arguments` follow the program's name.
    pub fn new(program: &'static str, limit: &str, arguments: &str) -> Self {
        Self::under(&under_test(), program, limit, arguments)
    }

    pub fn under(master: &Path, program: &'static str, limit: &str, arguments: &str) -> Self {
        let mut stage = Self {
            instance: Instance::bare_with(master),
            program,
            port: Port::reserve(),
        };
        stage.add_postlogd();
        stage.install(&service(program), program);
        stage.serve("y", limit, arguments);
        stage.start();
        stage
    }

    /// Writes the service's line, with this value of the column unpriv.
    pub fn serve(&mut self, unprivileged: &str, limit: &str, arguments: &str) {
        let (address, program) = (self.address(), self.program);
        self.service(&format!(
            "{address} inet n {unprivileged} n - {limit} {program} {arguments}"
        ));
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The processes of the service.
    pub fn processes(&self) -> Vec<Process> {
        self.children_named(self.program)
    }

    /// The service's answer to a client's text.
    #[track_caller]
    pub fn ask(&self, text: &str) -> String {
        ask(&self.address(), text)
    }
}

/// A service's answer to a client that sends this text and nothing more.
#[track_caller]
pub fn ask(address: &str, text: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a listener");
    stream.set_read_timeout(Some(SOON)).expect("a time limit");
    stream.write_all(text.as_bytes()).expect("a reader");
    stream.shutdown(Shutdown::Write).expect("a connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
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
