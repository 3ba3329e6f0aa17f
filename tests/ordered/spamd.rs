//! SpamAssassin's unchanged spamd under our master, with its own client.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::ports::Port;
use testkit::process::Process;
use testkit::programs::master;
use testkit::{file, needs_root, skip, test};

/// The Generic Test for Unsolicited Bulk Email, as the body of a message.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";
const ORDINARY: &str = "Shall we have lunch at noon?";

fn message(body: &str) -> String {
    format!(
        "From: <a@example.org>\nTo: <b@example.org>\nSubject: Lunch\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\nMessage-ID: <lunch.1@mail.example.org>\n\n{body}\n"
    )
}

/// Runs spamc(1) on a message, with these options.
fn spamc_of(server: &[&str], options: &[&str], message: &str) -> Output {
    let mut child = Command::new("/usr/bin/spamc")
        // Without -x, spamc returns the message unchanged if it is not checked.
        .arg("-x")
        .args(server)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("spamc");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(message.as_bytes()).expect("a reader");
    drop(stdin);
    child.wait_with_output().expect("an end")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The unchanged spamd under our master, started by `contrib/spamassassin/spamd`.
struct Spamd {
    started: Child,
    /// What `-r` names.
    pid: i32,
    directory: TempDir,
    /// How clients find it.
    server: Vec<String>,
    ports: [Port; 2],
}

impl Spamd {
    /// Skips the test unless spamd and spamc are installed.
    fn start(options: &[&str]) -> Self {
        let server = ["-d", "127.0.0.1", "-p", "{port}"];
        Self::listening(&["-i", "127.0.0.1", "-p", "{port}"], &server, options)
    }

    /// The same with options that say where it listens, and where clients find it. Ports and the test's
    /// directory have names in these.
    fn listening(endpoints: &[&str], server: &[&str], options: &[&str]) -> Self {
        needs_root("children change their user");
        for (path, package) in [("/usr/sbin/spamd", "spamd"), ("/usr/bin/spamc", "spamc")] {
            if !Path::new(path).exists() {
                skip(&format!("needs Debian's package {package}"));
            }
        }
        let directory = tempfile::tempdir().expect("a directory");
        let ports = [Port::reserve(), Port::reserve()];
        // Children that are another user write there.
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let named = |option: &&str| {
            let option = option.replace("{port}", &ports[0].to_string());
            let option = option.replace("{other port}", &ports[1].to_string());
            option.replace("{directory}", &directory.path().display().to_string())
        };
        let server: Vec<String> = server.iter().map(named).collect();
        let started = Command::new(file("contrib/spamassassin/spamd"))
            .env("MASTER", master())
            .args(["-L", "-u", "nobody", "-r", &path("pid"), "-s", &path("log")])
            .args(endpoints.iter().map(named))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("stderr")).expect("a file"))
            .spawn()
            .expect("perl");
        let mut spamd = Self {
            started,
            pid: 0,
            directory,
            server,
            ports,
        };
        // Reading the rules takes a long time on a busy machine.
        spamd.pid = until(3 * SOON, "a PID file", || spamd.pid_in_file());
        spamd
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn pid_in_file(&self) -> Option<i32> {
        let text = fs::read_to_string(self.path("pid")).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).expect("a log")
    }

    /// The master's children that serve.
    fn children(&self) -> Vec<Process> {
        let all = Process(self.pid).children();
        all.into_iter()
            .filter(|child| {
                let line = child.cmdline();
                line.first()
                    .is_some_and(|name| name.starts_with("spamd child"))
            })
            .collect()
    }

    fn wait_for_children(&self, number: usize) -> Vec<Process> {
        let what = format!("{number} children");
        until(3 * SOON, what, || {
            let children = self.children();
            (children.len() == number && children.iter().all(|child| child.waits()))
                .then_some(children)
        })
    }

    fn spamc(&self, options: &[&str], message: &str) -> Output {
        let server: Vec<&str> = self.server.iter().map(String::as_str).collect();
        spamc_of(&server, options, message)
    }

    #[track_caller]
    fn serves(&self) {
        let server: Vec<&str> = self.server.iter().map(String::as_str).collect();
        self.serves_at(&server);
    }

    #[track_caller]
    fn serves_at(&self, server: &[&str]) {
        let spam = text(&spamc_of(server, &[], &message(GTUBE)));
        assert!(spam.contains("\nX-Spam-Flag: YES\n"), "{spam}");
        assert!(spam.contains("tests=GTUBE"), "{spam}");
    }
}

impl Drop for Spamd {
    fn drop(&mut self) {
        if self.pid > 0 {
            Process(self.pid).signal(Signal::SIGTERM);
        }
        let _ = self.started.kill();
        let _ = self.started.wait();
    }
}

#[test]
fn unchanged_spamd_serves_spamc_with_children_of_the_master() {
    let mut spamd = Spamd::start(&["-m", "3"]);
    assert_eq!(spamd.pid, spamd.started.id() as i32);
    let children = spamd.wait_for_children(2);
    assert!(
        spamd
            .log()
            .contains(&format!("server pid: {}\n", spamd.pid))
    );
    spamd.serves();
    let ham = text(&spamd.spamc(&[], &message(ORDINARY)));
    assert!(ham.contains("\nX-Spam-Status: No, score="), "{ham}");
    assert!(!ham.contains("X-Spam-Flag"), "{ham}");
    assert!(ham.ends_with(&format!("\n\n{ORDINARY}\n")), "{ham}");
    assert!(children.iter().all(|child| child.uids() == [65534; 4]));
    Process(spamd.pid).signal(Signal::SIGTERM);
    spamd.started.wait().expect("an end");
    until(SOON, "no PID file", || !spamd.path("pid").exists());
    until(SOON, "no child", || {
        !children.iter().any(|child| child.runs())
    });
}

#[test]
fn spamc_can_check_ask_for_symbols_and_headers_and_ping() {
    let spamd = Spamd::start(&["-m", "3"]);
    let check = spamd.spamc(&["-c"], &message(GTUBE));
    assert_eq!(check.status.code(), Some(1), "spam");
    assert!(text(&check).ends_with("/5.0\n"), "{check:?}");
    let ordinary = spamd.spamc(&["-c"], &message(ORDINARY));
    assert_eq!(ordinary.status.code(), Some(0));
    assert!(text(&spamd.spamc(&["-y"], &message(GTUBE))).contains("GTUBE"));
    let headers = text(&spamd.spamc(&["--headers"], &message(ORDINARY)));
    assert!(headers.contains("X-Spam-Status: No"), "{headers}");
    assert!(spamd.spamc(&["-K"], "").status.success());
}

#[test]
fn spamd_loads_anew_on_hup_and_writes_its_pid_file_again() {
    for options in [&["-m", "3"][..], &["-m", "3", "--round-robin"]] {
        let spamd = Spamd::start(options);
        let number = if options.len() == 2 { 2 } else { 3 };
        let before = spamd.wait_for_children(number);
        let file = fs::metadata(spamd.path("pid"))
            .expect("a file")
            .ctime_nsec();
        Process(spamd.pid).signal(Signal::SIGHUP);
        until(3 * SOON, "another PID file", || {
            let other = fs::metadata(spamd.path("pid")).ok()?;
            (other.ctime_nsec() != file && spamd.pid_in_file() == Some(spamd.pid)).then_some(())
        });
        until(3 * SOON, "other children", || {
            let now = spamd.children();
            now.len() == number && !now.iter().any(|child| before.contains(child))
        });
        spamd.serves();
        until(SOON, "one template", || {
            Process(spamd.pid).children().len() == number + 1
        });
    }
}

#[test]
fn spamds_numbers_of_children_hold() {
    let numbers = ["-m", "6", "--min-children", "4", "--max-spare", "4"];
    let spamd = Spamd::start(&[&numbers[..], &["--max-conn-per-child", "1"]].concat());
    let before = spamd.wait_for_children(4);
    spamd.serves();
    until(SOON, "another child", || {
        let now = spamd.children();
        now.len() == 4 && now.iter().any(|child| !before.contains(child))
    });
    assert_eq!(spamd.log().matches("server started").count(), 1);
}

#[test]
fn a_child_of_spamd_that_is_killed_is_replaced() {
    let spamd = Spamd::start(&["-m", "3"]);
    for child in spamd.wait_for_children(2) {
        child.signal(Signal::SIGKILL);
        until(SOON, "its end", || !child.runs());
    }
    spamd.wait_for_children(2);
    spamd.serves();
}

#[test]
fn round_robin_children_share_the_listener() {
    let spamd = Spamd::start(&["-m", "3", "--round-robin"]);
    spamd.wait_for_children(3);
    for _ in 0..4 {
        spamd.serves();
    }
    spamd.wait_for_children(3);
}

/// The options that have spamd listen at a path, and spamc use it.
const AT_PATH: [&str; 2] = ["--socketpath", "{directory}/socket"];
const TO_PATH: [&str; 2] = ["-U", "{directory}/socket"];

#[test]
fn the_socket_of_spamd_has_its_path_and_mode() {
    let spamd = Spamd::listening(&AT_PATH, &TO_PATH, &["-m", "2", "--socketmode", "0600"]);
    let socket = fs::metadata(spamd.path("socket")).expect("a socket");
    assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, 0));
    spamd.serves();
    Process(spamd.pid).signal(Signal::SIGTERM);
    until(SOON, "no socket", || {
        fs::symlink_metadata(spamd.path("socket")).is_err()
    });
}

#[test]
fn spamd_serves_at_a_path_and_at_a_port_and_a_hangup_keeps_both() {
    let endpoints = [&AT_PATH[..], &["-i", "127.0.0.1", "-p", "{port}"]].concat();
    let rights = [
        "--socketmode",
        "0620",
        "--socketowner",
        "daemon",
        "--socketgroup",
        "mail",
    ];
    let spamd = Spamd::listening(&endpoints, &TO_PATH, &[&rights[..], &["-m", "3"]].concat());
    let port = spamd.ports[0].to_string();
    let line = spamd.log();
    assert!(line.contains("UNIX domain socket /"), "{line}");
    assert!(line.contains(&format!("[127.0.0.1]:{port}")), "{line}");
    let socket = fs::metadata(spamd.path("socket")).expect("a socket");
    assert_eq!(socket.mode() & 0o777, 0o620);
    let owners = (socket.uid(), socket.gid());
    let user = nix::unistd::User::from_name("daemon").ok().flatten();
    let group = nix::unistd::Group::from_name("mail").ok().flatten();
    let expected = (user.expect("a user").uid, group.expect("a group").gid);
    assert_eq!(owners, (expected.0.as_raw(), expected.1.as_raw()));
    spamd.serves();
    spamd.serves_at(&["-d", "127.0.0.1", "-p", &port]);
    let before = spamd.wait_for_children(2);
    Process(spamd.pid).signal(Signal::SIGHUP);
    until(3 * SOON, "other children, and no client refused", || {
        spamd.serves();
        let now = spamd.children();
        now.len() == 2 && !now.iter().any(|child| before.contains(child))
    });
    let again = fs::metadata(spamd.path("socket")).expect("a socket");
    assert_eq!((again.uid(), again.gid()), owners);
    assert_eq!((again.ino(), again.mode()), (socket.ino(), socket.mode()));
    spamd.serves_at(&["-d", "127.0.0.1", "-p", &port]);
}

#[test]
fn spamd_serves_at_all_that_it_is_told_to_listen_at() {
    let endpoints = [
        "--listen",
        "{directory}/socket",
        "--listen",
        "127.0.0.1:{port}",
    ];
    let others = [
        "--listen",
        "127.0.0.1:{other port}",
        "--listen",
        "{directory}/other",
    ];
    let endpoints = [endpoints, others].concat();
    for options in [&["-m", "2"][..], &["-m", "2", "--round-robin"]] {
        let spamd = Spamd::listening(&endpoints, &TO_PATH, options);
        let paths = ["socket", "other"].map(|name| spamd.path(name).display().to_string());
        for path in &paths {
            spamd.serves_at(&["-U", path]);
            let line = format!("got connection over {path}\n");
            assert!(spamd.log().contains(&line), "{}", spamd.log());
        }
        for port in &spamd.ports {
            spamd.serves_at(&["-d", "127.0.0.1", "-p", &port.to_string()]);
        }
        Process(spamd.pid).signal(Signal::SIGTERM);
        until(SOON, "no socket", || {
            paths.iter().all(|path| fs::symlink_metadata(path).is_err())
        });
    }
}

/// A spamd that never loads, so that it does not set the mode.
#[test]
fn others_cannot_use_the_socket_of_spamd_until_it_has_its_mode() {
    needs_root("spamd is for root");
    let directory = tempfile::tempdir().expect("a directory");
    let program = directory.path().join("spamd");
    fs::write(&program, "sleep 1000;\n").expect("a program");
    let mut started = Command::new(file("contrib/spamassassin/spamd"))
        .env("MASTER", master())
        .env("SPAMD", &program)
        .args(["--socketmode", "0600", "--socketpath"])
        .arg(directory.path().join("socket"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("perl");
    let configuration = until(SOON, "a master", || {
        let line = Process(started.id() as i32).cmdline();
        let option = line.iter().position(|word| word == "-c")?;
        line.get(option + 1).map(PathBuf::from)
    });
    let mode = |path: &Path| Some(fs::metadata(path).ok()?.mode() & 0o777);
    let mode = until(SOON, "a directory that others can enter", || {
        (mode(&configuration.join("run/public"))? & 0o001 != 0)
            .then(|| mode(&configuration.join("run/public/spamd-1")))
    });
    Process(started.id() as i32).signal(Signal::SIGTERM);
    started.wait().expect("an end");
    fs::remove_dir_all(&configuration).expect("what the template would remove");
    assert_eq!(mode.map(|mode| mode & 0o022), Some(0), "{mode:?}");
}

/// Without -u it is the master's default, which the package of Debian adds to the system.
#[test]
fn the_sockets_of_spamd_belong_to_the_user_of_the_option_or_to_masters_own() {
    needs_root("spamd is for root");
    for (added, options, owner) in [
        ("", &[][..], 65534),
        ("master:x:4711:4711::/:/bin/false\n", &[], 4711),
        ("master:x:0:0::/:/bin/false\n", &[], 65534),
        ("master:x:4711:4711::/:/bin/false\n", &["-u", "root"], 4711),
        ("master:x:4711:4711::/:/bin/false\n", &["-u", "mail"], 8),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs::write(path("spamd"), "sleep 1000;\n").expect("a program");
        let users = fs::read_to_string("/etc/passwd").expect("users");
        fs::write(path("users"), users + added).expect("users");
        let errors = fs::File::create(path("stderr")).expect("a file");
        let mut started = Command::new("unshare")
            .args(["--mount", "sh", "-euc"])
            .arg("mount --bind \"$1\" /etc/passwd; shift; exec \"$@\"")
            .args(["sh".into(), path("users")])
            .arg(file("contrib/spamassassin/spamd"))
            .args(["--socketpath".into(), path("socket")])
            .args(options)
            .env("MASTER", master())
            .env("SPAMD", path("spamd"))
            .stdin(Stdio::null())
            .stderr(errors)
            .spawn()
            .expect("unshare");
        let mut sockets = PathBuf::new();
        let metadata = until(SOON, "a socket", || {
            let ended = started.try_wait().expect("a process");
            let said = fs::read_to_string(path("stderr")).expect("a file");
            assert_eq!(ended, None, "{added}{options:?}: {said}");
            let line = Process(started.id() as i32).cmdline();
            let option = line.iter().position(|word| word == "-c")?;
            sockets = Path::new(line.get(option + 1)?).join("run/public");
            fs::metadata(sockets.join("spamd-1")).ok()?;
            fs::metadata(&sockets).ok()
        });
        Process(started.id() as i32).signal(Signal::SIGTERM);
        started.wait().expect("an end");
        fs::remove_dir_all(sockets.join("../..")).expect("what the template would remove");
        assert_eq!(metadata.uid(), owner, "{added}{options:?}");
    }
}

#[test]
fn spamd_as_a_daemon_returns_when_it_serves() {
    let mut spamd = Spamd::start(&["-m", "2", "-d"]);
    let status = spamd.started.wait().expect("an end");
    assert!(status.success(), "{status}");
    let master = Process(spamd.pid);
    assert_eq!(master.session(), master.0);
    spamd.serves();
}

#[test]
fn a_spamd_that_cannot_load_ends() {
    needs_root("spamd is for root");
    if !Path::new("/usr/sbin/spamd").exists() {
        skip("needs Debian's package spamd");
    }
    let port = Port::reserve();
    let end = Command::new(file("contrib/spamassassin/spamd"))
        .env("MASTER", master())
        .args(["-L", "-p", &port.to_string(), "--vpopmail"])
        .output()
        .expect("perl");
    let said = String::from_utf8_lossy(&end.stderr).into_owned();
    assert!(!end.status.success(), "{said}");
    assert!(said.contains("cannot use --vpopmail without -u"), "{said}");
}

#[test]
fn a_path_at_which_no_socket_can_be_is_an_error_at_the_start() {
    needs_root("spamd is for root");
    if !Path::new("/usr/sbin/spamd").exists() {
        skip("needs Debian's package spamd");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let taken = directory.path().join("file");
    fs::write(&taken, "").expect("a file");
    let listener = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&listener).expect("a socket");
    let long = directory.path().join("x".repeat(100));
    for (path, why) in [
        (&taken, "exists but is no socket"),
        (&listener, "already running on"),
        (&long, "exceeds system limit"),
    ] {
        let end = Command::new(file("contrib/spamassassin/spamd"))
            .env("MASTER", master())
            .args(["-L", "-i", "127.0.0.1", "--socketpath"])
            .arg(path)
            .output()
            .expect("perl");
        let said = String::from_utf8_lossy(&end.stderr).into_owned();
        assert!(!end.status.success() && said.contains(why), "{said}");
    }
}

/// As README.md shows it.
#[test]
fn a_table_of_spamd_written_by_hand_stays_when_the_master_ends() {
    needs_root("children change their user");
    if !Path::new("/usr/sbin/spamd").exists() || !Path::new("/usr/bin/spamc").exists() {
        skip("needs Debian's packages spamd and spamc");
    }
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let port = Port::reserve();
    let program = file("contrib/spamassassin/spamd");
    let write = |name: &str, text: &str| fs::write(path(name), text).expect("a file");
    let line = format!("127.0.0.1:{port} inet n n n - 5 {}\n", program.display());
    write("master.cf", &line);
    write(
        "master.toml",
        &format!(
            "queue_directory = \"run\"\ndata_directory = \"data\"\nmail_owner = \"nobody\"\n\
             import_environment = \"MAIL_CONFIG PATH LANG\"\n\
             [service.\"127.0.0.1:{port}/inet\"]\nalso_listen = [\"unix:public/spamd-1\"]\n\
             preload = true\naccept = \"ordered\"\n"
        ),
    );
    let (pid, socket) = (path("pid"), path("socket"));
    let options = format!(
        "-L -u nobody -i 127.0.0.1 -p {port} --socketpath {socket} -r {pid} -s {}",
        path("log")
    );
    let fields = [&pid, "", "", "/", "1", &socket].into_iter();
    let fields: Vec<&str> = fields.chain(options.split(' ')).collect();
    write("start", &fields.join("\0"));
    // The second time it finds what the first time has left.
    for _ in 0..2 {
        let mut started = Command::new(master())
            .args(["-d", "-c", &path("")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a master");
        until(3 * SOON, "a PID file", || {
            fs::exists(&pid).ok()?.then_some(())
        });
        let port = port.to_string();
        for server in [
            ["-d", "127.0.0.1", "-p", &port].as_slice(),
            &["-U", &socket],
        ] {
            let spam = text(&spamc_of(server, &[], &message(GTUBE)));
            assert!(spam.contains("tests=GTUBE"), "{spam}");
        }
        Process(started.id() as i32).signal(Signal::SIGTERM);
        started.wait().expect("an end");
        until(SOON, "no socket and no PID file", || {
            fs::symlink_metadata(&socket).is_err() && !fs::exists(&pid).unwrap_or(true)
        });
        assert_eq!(
            fs::read_to_string(path("master.cf")).ok(),
            Some(line.clone())
        );
        assert!(fs::symlink_metadata(path("loaded")).is_err());
    }
}
