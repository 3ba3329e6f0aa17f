//! A name server for a test in a [network of its own](crate::network), and a master that asks no other.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::instance::{Instance, SOON};
use crate::network::LOOPBACK_2;

/// The name server of the test's network (RFC 1035), which knows one host.
pub struct NameServer(UdpSocket);

/// A query that has not been answered yet.
pub struct Question {
    message: Vec<u8>,
    from: SocketAddr,
}

pub const HOST: &str = "host.test";
/// The host's address.
pub const ADDRESS: &str = LOOPBACK_2;

impl NameServer {
    pub fn start() -> Self {
        Self(UdpSocket::bind("127.0.0.1:53").expect("the name server's port"))
    }

    pub fn wait(&self, limit: Duration) -> io::Result<Question> {
        self.0.set_read_timeout(Some(limit))?;
        let mut message = vec![0; 512];
        let (length, from) = self.0.recv_from(&mut message)?;
        message.truncate(length);
        Ok(Question { message, from })
    }

    #[track_caller]
    pub fn question(&self) -> Question {
        self.wait(SOON).expect("a question")
    }

    /// Answers with the host's address; the host has only an IPv4 address.
    pub fn answer(&self, question: &Question) {
        const HEADER: usize = 12;
        let message = &question.message;
        let name = message[HEADER..].iter().position(|&byte| byte == 0);
        let end = HEADER + name.expect("a name") + 1 + 4;
        let wants_ipv4 = message[end - 4..end - 2] == [0, 1];
        let mut answer = message[..end].to_vec();
        // A response to a recursive query, with one answer for IPv4 and none otherwise.
        answer[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(wants_ipv4), 0, 0, 0, 0]);
        if wants_ipv4 {
            // The queried name, type A, class IN, a TTL of a minute, an address.
            answer.extend([0xc0, HEADER as u8, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(ADDRESS.parse::<Ipv4Addr>().expect("an address").octets());
        }
        self.0.send_to(&answer, question.from).expect("an answer");
    }

    /// Answers this query and all others until `waits` returns.
    pub fn answer_while(&self, question: &Question, waits: impl FnOnce() + Send) {
        thread::scope(|scope| {
            let waiting = scope.spawn(waits);
            self.answer(question);
            while !waiting.is_finished() {
                if let Ok(question) = self.wait(Duration::from_millis(10)) {
                    self.answer(&question);
                }
            }
        });
    }
}

/// The command of a master whose only source of host names is the name server, with one attempt per
/// query.
pub fn master(postfix: &Instance) -> Command {
    let resolv_conf = "nameserver 127.0.0.1\noptions timeout:30 attempts:1\n";
    fs::write(postfix.path().join("resolv.conf"), resolv_conf).expect("a file");
    fs::write(postfix.path().join("nsswitch.conf"), "hosts: dns\n").expect("a file");
    let script = format!(
        "for file in resolv.conf nsswitch.conf; do mount --bind {}/$file /etc/$file; done && \
         exec \"$@\"",
        postfix.path().display()
    );
    let options = ["--mount", "sh", "-ec", &script, "sh"];
    postfix.under(Path::new("unshare"), &options)
}
