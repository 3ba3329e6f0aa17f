//! A system for tests, with a table of names.

use std::cell::Cell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::{Base, Config, Diagnostics, Family, Resolver, Source, Sources, StandAlone, User};

/// A machine `vm` with a loopback interface and one network card; the mail owner is `postfix`.
#[derive(Clone, Debug)]
pub(super) struct FakeSystem {
    pub(super) hostname: &'static str,
    pub(super) interfaces: Vec<IpAddr>,
    pub(super) families: Vec<Family>,
    pub(super) users: Vec<(&'static str, User)>,
    pub(super) landlock_version: u32,
    /// What each program needs beside itself.
    pub(super) needs: Vec<&'static str>,
    /// Number of host lookups.
    pub(super) lookups: Cell<usize>,
    /// Files that users other than root can change.
    pub(super) shared: Vec<&'static str>,
}

impl Default for FakeSystem {
    fn default() -> Self {
        let user = |uid, gid| User { uid, gid };
        Self {
            hostname: "vm",
            interfaces: ips(&["192.0.2.1", "127.0.0.1", "2001:db8::1", "::1"]),
            families: vec![Family::Ipv4, Family::Ipv6],
            users: vec![
                ("root", user(0, 0)),
                ("wheel", user(7, 0)),
                ("nobody", user(65534, 65534)),
                ("postfix", user(105, 112)),
                ("postfix2", user(105, 112)),
            ],
            landlock_version: 7,
            needs: vec!["/usr/lib/ld.so"],
            lookups: Cell::new(0),
            shared: Vec::new(),
        }
    }
}

/// Parses a test's addresses.
pub(super) fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    let parse = |address: &&str| address.parse().expect("a test's address");
    addresses.iter().map(parse).collect()
}

impl Resolver for FakeSystem {
    fn check_trust(&self, path: &Path) -> Result<(), String> {
        let shared = self.shared.iter().find(|shared| path.starts_with(shared));
        shared.map_or(Ok(()), |shared| Err(format!("{shared} is shared")))
    }

    fn hostname(&self) -> String {
        self.hostname.to_owned()
    }

    fn host(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.lookups.set(self.lookups.get() + 1);
        match name {
            "localhost" => Ok(ips(&["::1", "127.0.0.1"])),
            "mail.example.com" => Ok(ips(&["192.0.2.1", "2001:db8::1", "192.0.2.1"])),
            "partly.example.com" => Ok(ips(&["192.0.2.1", "192.0.2.9"])),
            "v6.example.com" => Ok(ips(&["2001:db8::1"])),
            "many.example.com" => Ok((0..257u16)
                .map(|n| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]))
                .collect()),
            _ => Err("Name or service not known".to_owned()),
        }
    }

    fn tcp_service(&self, name: &str) -> Option<u16> {
        (name == "http").then_some(80)
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        self.interfaces.clone()
    }

    fn has_address(&self, address: IpAddr) -> bool {
        self.interfaces.contains(&address)
    }

    fn user(&self, name: &str) -> Option<User> {
        let entry = self.users.iter().find(|(user, _)| *user == name)?;
        Some(entry.1)
    }

    fn user_name(&self, uid: u32) -> Option<String> {
        let entry = self.users.iter().find(|(_, user)| user.uid == uid)?;
        Some(entry.0.to_owned())
    }

    fn groups(&self, user: &str, gid: u32) -> Vec<u32> {
        if user == "postfix" {
            vec![gid, 45]
        } else {
            vec![gid]
        }
    }

    fn group(&self, name: &str) -> Option<u32> {
        let groups = [("root", 0), ("mail", 8), ("sasl", 45), ("nogroup", 65534)];
        let (_, gid) = groups.iter().find(|(group, _)| *group == name)?;
        Some(*gid)
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf, String> {
        match path.to_str() {
            Some("/lib") => Ok("/usr/lib".into()),
            Some(path) if path.contains("missing") => Err("No such file or directory".to_owned()),
            _ => Ok(path.to_owned()),
        }
    }

    fn needed_files(&self, program: &Path) -> Vec<PathBuf> {
        let needs = self.needs.iter().map(PathBuf::from);
        std::iter::once(program.to_owned()).chain(needs).collect()
    }

    fn landlock_version(&self) -> u32 {
        self.landlock_version
    }

    fn has_family(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    fn process_id(&self) -> u32 {
        4711
    }

    fn check_log_file(&self, path: &Path, _alone: bool) -> Result<(), String> {
        if path == Path::new("/var/fifo") {
            Err("it is a FIFO, expected a regular file or /dev/stdout".to_owned())
        } else {
            Ok(())
        }
    }
}

/// The files of `/etc/postfix`, without a `master.toml`.
pub(super) fn sources(main_cf: impl Into<Vec<u8>>, master_cf: impl Into<Vec<u8>>) -> Sources {
    Sources {
        directory: "/etc/postfix".into(),
        base: Base::Postfix(Source {
            path: "main.cf".into(),
            text: main_cf.into(),
        }),
        master_cf: Source {
            path: "master.cf".into(),
            text: master_cf.into(),
        },
        more_tables: Vec::new(),
        master_toml: None,
        if_others_may_write: None,
        more_toml: Vec::new(),
        has_drop_ins: true,
    }
}

/// A table without Postfix, run by `user`; `None` is root.
pub(super) fn stand_alone(user: Option<User>, master_cf: &str) -> Sources {
    Sources {
        base: Base::StandAlone(StandAlone {
            daemon_directory: "/opt/master/bin".into(),
            queue_directory: "/run/user/$1/master".into(),
            data_directory: "/home/a/.local/state/master".into(),
            user,
        }),
        ..sources("", master_cf)
    }
}

/// Reads a `main.cf` beside a table with one service.
pub(super) fn parse_main(main_cf: &str) -> Result<Config, Diagnostics> {
    let sources = sources(main_cf, "a unix - - n - - a\n");
    Config::parse(&sources, &FakeSystem::default())
}

/// Reads a table beside a `main.cf` that sets nothing of interest.
pub(super) fn parse_master(master_cf: &str) -> Result<Config, Diagnostics> {
    let sources = sources("compatibility_level = 3.6\n", master_cf);
    Config::parse(&sources, &FakeSystem::default())
}

/// The findings of a configuration that must have an error, one per line.
pub(super) fn errors(result: Result<Config, Diagnostics>) -> Vec<String> {
    let findings = result.expect_err("a configuration with errors");
    findings.0.iter().map(ToString::to_string).collect()
}

/// The warnings of a configuration that must have no error, one per line.
pub(super) fn warnings(result: Result<Config, Diagnostics>) -> Vec<String> {
    let config = result.expect("a configuration without errors");
    config.warnings.iter().map(ToString::to_string).collect()
}
