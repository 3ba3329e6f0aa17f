//! statusd's HTTP answers.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;
use testkit::instance::SOON;
use testkit::poll::until;

/// A web server's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    pub body: String,
}

pub trait Site {
    /// The server's address.
    fn address(&self) -> String;

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    #[track_caller]
    fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// Gets a path, with additional headers, each with its line end.
    #[track_caller]
    fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        ))
    }

    /// The answer to a request, which is sent unchanged.
    #[track_caller]
    fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address()).expect("a listener");
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("a reader");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        Answer::parse(&String::from_utf8(answer).expect("text"))
    }

    /// Waits for an answer that satisfies `right`, and returns it.
    #[track_caller]
    fn wait_for(&self, path: &str, right: impl Fn(&Answer) -> bool) -> Answer {
        until(SOON, format!("another answer at {path}"), || {
            let answer = self.get(path);
            right(&answer).then_some(answer)
        })
    }
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("headers and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            status: status.expect("a status"),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    /// The number of samples of the first service in the page's data.
    #[track_caller]
    pub fn samples(&self) -> usize {
        let view: Value = serde_json::from_str(&self.body).expect("JSON");
        let busy = view["history"]["services"][0]["busy"].as_array();
        busy.expect("samples").len()
    }
}
