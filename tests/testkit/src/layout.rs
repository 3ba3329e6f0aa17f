//! The files of a private Postfix: directories as post-install(1) creates them, and settings that
//! isolate it from the machine.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::unistd::{Group, User};

use crate::POSTFIX_DAEMONS;
use crate::instance::{Instance, SOON};
use crate::run::run;

/// The services of an instance that delivers mail. `PORT` is the instance's port.
pub const MAIL_SERVICES: &str = "\
127.0.0.1:PORT inet n - n - - smtpd
pickup     unix n - n 60    1 pickup
cleanup    unix n - n -     0 cleanup
qmgr       unix n - n 300   1 qmgr
tlsmgr     unix - - n 1000? 1 tlsmgr
rewrite    unix - - n -     - trivial-rewrite
bounce     unix - - n -     0 bounce
defer      unix - - n -     0 bounce
trace      unix - - n -     0 bounce
verify     unix - - n -     1 verify
flush      unix n - n 1000? 0 flush
proxymap   unix - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp       unix - - n -     - smtp
relay      unix - - n -     - smtp
showq      unix n - n -     - showq
error      unix - - n -     - error
retry      unix - - n -     - error
discard    unix - - n -     - discard
local      unix - n n -     - local
virtual    unix - n n -     - virtual
lmtp       unix - - n -     - lmtp
anvil      unix - - n -     1 anvil
scache     unix - - n -     1 scache
";

/// An unprivileged user, who owns delivered mail.
const MAIL_RECIPIENT: u32 = 65534;

/// The queue's directories, their modes, and whether their group is `postdrop`.
const QUEUE: [(&str, u32, bool); 14] = [
    ("active", 0o700, false),
    ("bounce", 0o700, false),
    ("corrupt", 0o700, false),
    ("defer", 0o700, false),
    ("deferred", 0o700, false),
    ("flush", 0o700, false),
    ("hold", 0o700, false),
    ("incoming", 0o700, false),
    ("private", 0o700, false),
    ("saved", 0o700, false),
    ("trace", 0o700, false),
    ("maildrop", 0o730, true),
    ("public", 0o710, true),
    ("pid", 0o755, false), // owned by root
];

/// Creates everything except the configuration.
pub fn make_directories(instance: &Instance) {
    mkdir(instance.path(), 0o755);
    for name in ["etc", "queue", "log", "mail", "sbin"] {
        mkdir(&instance.path().join(name), 0o755);
    }
    let (uid, gid) = mail_owner();
    let postdrop = Group::from_name("postdrop")
        .expect("the groups")
        .expect("the group postdrop")
        .gid
        .as_raw();
    let data = instance.path().join("data");
    mkdir(&data, 0o700);
    chown(&data, Some(uid), Some(gid)).expect("data, owned by postfix");
    for (name, mode, setgid) in QUEUE {
        let path = instance.queue().join(name);
        mkdir(&path, mode);
        let owner = if name == "pid" { 0 } else { uid };
        let group = if setgid { postdrop } else { 0 };
        chown(&path, Some(owner), Some(group)).expect("queue, owned by postfix");
        // The owner first, then the mode: chown(2) clears mode bits.
        mkdir(&path, mode);
    }
    chown(
        instance.path().join("mail"),
        Some(MAIL_RECIPIENT),
        Some(MAIL_RECIPIENT),
    )
    .expect("a directory for mail");
}

/// Copies the distribution's daemons into the daemon directory.
pub fn copy_daemons(instance: &Instance) {
    // Copies, because `postfix check` complains about links that leave the directory. By cp(1),
    // because a program that is open for writing cannot be run, and another thread's child may
    // inherit our descriptor for a moment.
    let mut copy = Command::new("cp");
    copy.arg("-aT").arg(POSTFIX_DAEMONS).arg(instance.daemons());
    run(&mut copy, SOON).expect_success();
}

/// The lines of main.cf, for an instance in a directory.
pub fn parameters(directory: &Path) -> Vec<(&'static str, String)> {
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    vec![
        ("compatibility_level", "3.6".to_owned()),
        ("queue_directory", path("queue")),
        ("data_directory", path("data")),
        ("daemon_directory", path("sbin")),
        ("command_directory", "/usr/sbin".to_owned()),
        ("shlib_directory", "/usr/lib/postfix".to_owned()),
        ("meta_directory", "/etc/postfix".to_owned()),
        ("mail_owner", "postfix".to_owned()),
        ("setgid_group", "postdrop".to_owned()),
        ("maillog_file", path("log/maillog")),
        ("maillog_file_prefixes", path("")),
        ("myhostname", "host.test".to_owned()),
        ("mydestination", String::new()),
        ("mynetworks", "127.0.0.0/8".to_owned()),
        ("inet_interfaces", "127.0.0.1".to_owned()),
        ("inet_protocols", "ipv4".to_owned()),
        ("smtpd_peername_lookup", "no".to_owned()),
        (
            "smtpd_relay_restrictions",
            "permit_mynetworks, reject".to_owned(),
        ),
        ("in_flow_delay", "0".to_owned()),
        ("alias_maps", String::new()),
        ("alias_database", String::new()),
        ("virtual_mailbox_domains", "example.test".to_owned()),
        ("virtual_mailbox_maps", "static:box/".to_owned()),
        ("virtual_mailbox_base", path("mail")),
        ("virtual_uid_maps", format!("static:{MAIL_RECIPIENT}")),
        ("virtual_gid_maps", format!("static:{MAIL_RECIPIENT}")),
    ]
}

/// The user and group of the mail system.
pub fn mail_owner() -> (u32, u32) {
    let user = User::from_name("postfix")
        .expect("the users")
        .expect("the user postfix");
    (user.uid.as_raw(), user.gid.as_raw())
}

fn mkdir(path: &Path, mode: u32) {
    if !path.exists() {
        fs::create_dir(path).unwrap_or_else(|why| panic!("{path:?}: {why}"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// Replaces a configuration file atomically, so that a starting daemon reads either the old or the
/// new one. The file looks older than it is, because Postfix's programs wait until main.cf is more
/// than a second old.
pub fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("new");
    fs::write(&draft, text).expect("a draft");
    let file = fs::File::options().append(true).open(&draft);
    let past = SystemTime::now() - Duration::from_secs(60);
    file.and_then(|file| file.set_modified(past))
        .expect("a time stamp");
    fs::rename(&draft, path).expect("a new file");
}
