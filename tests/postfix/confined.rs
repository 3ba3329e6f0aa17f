//! The whole of Debian's table with `contrib/postfix/master.toml`: mail goes in each direction.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use testkit::instance::{Instance, SOON};
use testkit::poll::until;
use testkit::ports::Port;
use testkit::run::{Running, run};
use testkit::{file, layout, needs_ours, needs_root, programs, test};

const MINUTES: Duration = Duration::from_secs(240);

/// Messages in each direction.
const MESSAGES: usize = 1000;

/// Lines of Debian's table, as the package brings it along, with those below them that continue them.
fn debian() -> String {
    let table = fs::read_to_string("/usr/share/postfix/master.cf.dist").expect("Debian's table");
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The first two columns of each service.
fn services(table: &str) -> Vec<String> {
    let lines = table.lines().filter(|line| !line.starts_with([' ', '\t']));
    let names = lines.map(|line| {
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join("/")
    });
    names.filter(|name| !name.is_empty()).collect()
}

/// A mail system with Debian's table, in its chroots, and master.toml.
pub fn confined() -> Instance {
    let mut postfix = Instance::new();
    // It would leave with the children of the first reload.
    postfix.unwatched("the tables of the configuration are the package's");
    postfix.install(&programs::executor(), "master-exec");
    let address = postfix.address();
    let table = debian().replace("smtp      inet", &format!("{address} inet"));
    let mut lines = table.lines().peekable();
    while let Some(line) = lines.next() {
        let mut line = line.to_owned();
        while let Some(more) = lines.next_if(|next| next.starts_with([' ', '\t'])) {
            line = format!("{line} {}", more.trim());
        }
        if !line.is_empty() {
            postfix.service(&line);
        }
    }
    postfix
}

/// `contrib/postfix/master.toml`, for this instance: its port, its log, and more services, by name and
/// type.
pub fn write_toml(postfix: &Instance, more: &[&str]) {
    let toml = fs::read_to_string(file("contrib/postfix/master.toml")).expect("a file");
    let toml = toml.replace("smtp/inet", &format!("{}/inet", postfix.address()));
    let log = postfix.path().join("log");
    let postlog = "[service.\"postlog/unix-dgram\"]\n";
    let paths = format!(
        "{postlog}read_write_paths = [\"$preset\", \"{}\"]\n",
        log.display()
    );
    let mut toml = toml.replace(postlog, &paths);
    for service in more {
        let _ = writeln!(toml, "[service.\"{service}\"]\nsandbox = \"postfix\"");
    }
    layout::replace(&postfix.configuration().join("master.toml"), &toml);
}

#[test]
fn the_preset_is_set_for_each_service_of_debians_table() {
    let toml = fs::read_to_string(file("contrib/postfix/master.toml")).expect("a file");
    let services = services(&debian());
    assert!(services.len() > 30, "{services:?}");
    for service in services {
        let table = format!("\n[service.\"{service}\"]\nsandbox = \"postfix\"\n");
        assert!(toml.contains(&table), "{service}");
    }
}

/// A script that adds a line to a file, whatever it reads.
fn counting(postfix: &Instance, name: &str) -> (String, std::path::PathBuf) {
    let counter = postfix.path().join(format!("mail/{name}"));
    let script = postfix.path().join(name);
    let text = format!(
        "#!/bin/sh\ncat >/dev/null\necho x >>{}\n",
        counter.display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    (script.display().to_string(), counter)
}

fn lines(path: &std::path::Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Sends this many messages to an address.
fn send(postfix: &Instance, to: &str, messages: usize) {
    let mut source = Command::new("smtp-source");
    source
        .args(["-f", "from@example.test", "-t", to, "-s", "10"])
        .args(["-m", &messages.to_string(), &postfix.address()]);
    run(&mut source, MINUTES).expect_success();
}

/// What went to an address, by the log.
fn sent(log: &str, to: &str) -> usize {
    let to = format!("to=<{to}>");
    let is_sent = |line: &&str| line.contains(&to) && line.contains("status=sent");
    log.lines().filter(is_sent).count()
}

/// Receives mail on a port.
fn sink(options: &[&str]) -> (Running, Port) {
    let port = Port::reserve();
    let mut sink = Command::new("smtp-sink");
    // A user that may bind the reserved port.
    sink.args(["-u", "root"]).args(options);
    sink.arg(format!("127.0.0.1:{port}")).arg("100");
    (Running::start(&mut sink), port)
}

#[test]
fn a_thousand_messages_arrive_in_each_direction() {
    needs_root("to run a mail system");
    needs_ours("the original has no master.toml");
    let mut postfix = confined();
    let (_smtp, smtp) = sink(&[]);
    let (_lmtp, lmtp) = sink(&["-L"]);
    let (forward, forwarded) = counting(&postfix, "forwarded");
    let (pipe, piped) = counting(&postfix, "piped");
    fs::write(
        postfix.path().join("forward-nobody"),
        format!("\"|{forward}\"\n"),
    )
    .expect("a file");
    let forward_path = postfix.path().join("forward-$user").display().to_string();
    postfix
        .set("mydestination", "local.test")
        .set("local_recipient_maps", "")
        .set("forward_path", forward_path)
        .set(
            "transport_maps",
            format!(
                "inline:{{piped.test=counted:, lmtp.test=lmtp:inet:127.0.0.1:{lmtp}, \
                 remote.test=smtp:[127.0.0.1]:{smtp}, lost.test=error:no}}"
            ),
        )
        .set("local_destination_concurrency_limit", 20)
        .set("minimal_backoff_time", "2s")
        .set("queue_run_delay", "2s");
    postfix.service(&format!(
        "counted unix - n n - - pipe user=nobody argv={pipe}"
    ));
    postfix.service("told unix - n n - 20 spawn user=nobody argv=/bin/cat");
    write_toml(&postfix, &["counted/unix", "told/unix"]);
    postfix.start();
    for to in [
        "to@example.test",
        "x@remote.test",
        "x@lmtp.test",
        "x@piped.test",
        "nobody@local.test",
    ] {
        send(&postfix, to, MESSAGES);
    }
    postfix.wait_for_delivery(MESSAGES, MINUTES);
    until(MINUTES, "all messages to be sent", || {
        let log = postfix.log();
        let counts = ["x@remote.test", "x@lmtp.test"].map(|to| sent(&log, to));
        counts == [MESSAGES; 2] && lines(&piped) == MESSAGES && lines(&forwarded) == MESSAGES
    });
    // A message that cannot be delivered comes back, and one that is posted is delivered.
    for _ in 0..20 {
        for to in ["to@example.test", "x@lost.test"] {
            let arguments = ["-f", "from@example.test", to];
            run(&mut postfix.sendmail(&arguments), SOON).expect_success();
        }
    }
    postfix.wait_for_delivery(MESSAGES + 40, MINUTES);
    let mut listing = Command::new("postqueue");
    listing.arg("-c").arg(postfix.configuration()).arg("-p");
    let listed = run(&mut listing, SOON).expect_success();
    assert!(listed.stdout.contains("queue is empty"), "{listed:?}");
    assert_eq!(refusals(&postfix.log()), [""; 0]);
}

/// Lines that tell of a refusal, by a daemon or by the master; a busy machine has other warnings.
pub fn refusals(log: &str) -> Vec<&str> {
    let words = [
        "error:",
        "fatal:",
        "panic:",
        "denied",
        "not permitted",
        "not implemented",
        "unavailable",
        "Cannot allocate",
        "Too many open files",
        "cannot apply",
        "killed by signal",
        "exit status",
        "throttling",
    ];
    let is_bad = |line: &&str| words.iter().any(|word| line.contains(word));
    log.lines().filter(is_bad).collect()
}

/// Each setting that a Postfix daemon does not change itself, as it does umask and limit_fsize.
const EACH: &str = "\
limit_nofile = \"100:200\"
limit_core = 0
limit_as = \"4G\"
limit_cpu = \"10m:20m\"
limit_data = \"2G:3G\"
limit_nproc = 1000
limit_stack = \"4M\"
limit_memlock = \"16K\"
nice = 3
ionice = \"best-effort:6\"
oom_score_adjust = 500
cpu_affinity = \"0\"
supplementary_groups = [\"mail\"]
no_new_privileges = true
capability_bounding_set = [\"dac_override\", \"setgid\", \"setuid\", \"kill\"]
system_call_filter = \"baseline\"
isolate = [\"signals\"]
read_only_paths = [\"$config_directory\", \"/\"]
read_write_paths = [\"$queue_directory\", \"$data_directory\", \"/dev/null\", \"/tmp\"]
";

#[test]
fn the_kernel_says_each_setting_of_postfixs_daemons() {
    needs_root("to run a mail system");
    needs_ours("the original has no master.toml");
    let mut postfix = Instance::mail();
    postfix.unwatched("a service is added that has no sandbox");
    postfix.install(&programs::executor(), "master-exec");
    postfix.service("piped unix - n n - - pipe user=nobody argv=/bin/cat");
    postfix.set("transport_maps", "inline:{piped.test=piped:}");
    let smtpd = format!("{}/inet", postfix.address());
    let tables = [&*smtpd, "cleanup/unix", "piped/unix"];
    let toml = tables.map(|name| format!("[service.\"{name}\"]\n{EACH}"));
    layout::replace(&postfix.configuration().join("master.toml"), &toml.concat());
    postfix.start();
    send(&postfix, "x@piped.test", 1);
    until(SOON, "the message to be sent", || {
        sent(&postfix.log(), "x@piped.test") == 1
    });
    for name in ["smtpd", "cleanup", "pipe"] {
        let children = postfix.children_named(name);
        let child = children.first().unwrap_or_else(|| panic!("no {name}"));
        let of = |file: &str| {
            let text = fs::read_to_string(format!("/proc/{}/{file}", child.0)).expect(file);
            let lines = text
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines
                .map(|words| words.join(" ") + "\n")
                .collect::<String>()
        };
        let (status, limits) = (of("status"), of("limits"));
        for line in [
            "CapBnd: 00000000000000e2",
            "NoNewPrivs: 1",
            "Seccomp: 2",
            "Cpus_allowed_list: 0",
        ] {
            assert!(
                status.contains(&format!("{line}\n")),
                "{name}: {line}: {status}"
            );
        }
        for line in [
            " 200 files",
            "Max core file size 0 0 bytes",
            "Max address space 4294967296 4294967296 bytes",
            "Max cpu time 600 1200 seconds",
            "Max data size 2147483648 3221225472 bytes",
            "Max processes 1000 1000 processes",
            "Max stack size 4194304 4194304 bytes",
            "Max locked memory 16384 16384 bytes",
        ] {
            assert!(
                limits.contains(&format!("{line}\n")),
                "{name}: {line}: {limits}"
            );
        }
        assert_eq!(of("oom_score_adj").trim(), "500", "{name}");
        // After the name: state, and 15 more fields before the nice value.
        let stat = of("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        assert_eq!(fields.split(' ').nth(16), Some("3"), "{name}: {fields}");
        assert_eq!(io_priority(child.0), (2 << 13) | 6, "{name}");
    }
}

/// The kernel's number for the class and the level.
fn io_priority(pid: i32) -> i64 {
    // SAFETY: the call takes numbers.
    unsafe { nix::libc::syscall(nix::libc::SYS_ioprio_get, 1, pid) }
}
