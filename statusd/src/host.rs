//! The names under which clients may reach this server. A page of another site can have a browser
//! connect here under that site's name (DNS rebinding), and would then read the answers.

use std::net::IpAddr;

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode, Version};

/// The names of this server. Addresses and `localhost` belong to every server.
#[derive(Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// Reads a list of names, separated by white space and commas.
    ///
    /// # Errors
    /// A word that is no name.
    pub fn parse(list: &str) -> Result<Self, String> {
        let words = list.split([' ', '\t', '\r', '\n', ',']);
        let words = words.filter(|word| !word.is_empty());
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let names = words.map(|word| match word.chars().all(is_letter) {
            true => Ok(canonical(word)),
            false => Err(format!(
                "bad host name: \"{word}\": expected a name without port, as in \
                 \"status.example.com\""
            )),
        });
        Ok(Self(names.collect::<Result<_, _>>()?))
    }

    /// Whether a request is for this server.
    ///
    /// # Errors
    /// The status of the answer: the request names no server, or another one.
    pub fn check(&self, request: &Request<impl Sized>) -> Result<(), StatusCode> {
        let mut fields = request.headers().get_all(HOST).iter();
        let field = fields.next();
        if fields.next().is_some() {
            return Err(StatusCode::BAD_REQUEST);
        }
        if let Some(field) = field {
            let host = field.to_str().ok();
            let host = host.and_then(|host| host.trim().parse().ok());
            self.check_authority(&host.ok_or(StatusCode::MISDIRECTED_REQUEST)?)?;
        } else if request.version() > Version::HTTP_10 {
            // Older clients do not send it; browsers always do (RFC 9112, 3.2).
            return Err(StatusCode::BAD_REQUEST);
        }
        // "GET http://name/ HTTP/1.1" names the server once more.
        match request.uri().authority() {
            Some(authority) => self.check_authority(authority),
            None => Ok(()),
        }
    }

    fn check_authority(&self, authority: &Authority) -> Result<(), StatusCode> {
        let host = authority.host();
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_address = match in_brackets {
            Some(address) => address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
            None => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()),
        };
        let name = canonical(host);
        let is_known = is_address || name == "localhost" || self.0.contains(&name);
        if is_known && !authority.as_str().contains('@') {
            Ok(())
        } else {
            Err(StatusCode::MISDIRECTED_REQUEST)
        }
    }
}

/// A name in small letters, without the dot at its end.
fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(request: &Request<()>) -> u16 {
        let hosts = Hosts::parse("Status.Example.com, other.example").expect("names");
        match hosts.check(request) {
            Ok(()) => 200,
            Err(status) => status.as_u16(),
        }
    }

    fn named(host: &str) -> u16 {
        let request = Request::get("/").header(HOST, host).body(());
        checked(&request.expect("a request"))
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:7099",
            "192.0.2.1",
            "[::1]",
            "[2001:db8::1]:80",
            "localhost",
            "LocalHost:7099",
            "localhost.",
            "status.example.com:443",
            "OTHER.example.",
        ] {
            assert_eq!(named(host), 200, "{host}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for host in [
            "",
            " ",
            "evil.example",
            "evil.example:7099",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "example.com",
            "a.status.example.com",
            "localhost@evil.example",
            "evil.example@localhost",
            "::1",
            "[127.0.0.1]",
            "[::1",
            "2130706433",
            "0x7f.1",
            "local host",
            "localhost..",
            "localhost/",
        ] {
            assert_eq!(named(host), 421, "{host}");
        }
    }

    #[test]
    fn a_request_names_one_server() {
        let two = Request::get("/")
            .header(HOST, "localhost")
            .header(HOST, "localhost");
        assert_eq!(checked(&two.body(()).expect("a request")), 400);
        let none = Request::get("/").body(()).expect("a request");
        assert_eq!(checked(&none), 400);
        let old = Request::get("/").version(Version::HTTP_10).body(());
        assert_eq!(checked(&old.expect("a request")), 200);
    }

    #[test]
    fn a_name_in_the_request_line_counts_too() {
        let mixed = |line: &str, host: &str| {
            let request = Request::get(line).header(HOST, host).body(());
            checked(&request.expect("a request"))
        };
        assert_eq!(mixed("http://localhost/", "localhost"), 200);
        assert_eq!(mixed("http://evil.example/", "localhost"), 421);
        assert_eq!(mixed("http://localhost/", "evil.example"), 421);
    }

    #[test]
    fn what_is_no_name_is_an_error() {
        assert!(Hosts::parse(" \n ,").is_ok_and(|hosts| hosts.0.is_empty()));
        for bad in ["https://a.example", "a.example:80", "*.a.example", "a b@c"] {
            let error = Hosts::parse(bad).expect_err("an error");
            assert!(error.contains("expected a name without port"), "{error}");
        }
    }
}
