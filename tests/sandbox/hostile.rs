//! What a child can do to the rest of the system that has Postfix's user and is hostile: under Postfix's
//! master and ours without settings, and with the preset of smtpd(8). SECURITY.md has these as a table.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::libc;
use nix::unistd::{Pid, getpgid};
use testkit::instance::{Instance, SOON};
use testkit::layout;
use testkit::poll::until;
use testkit::process::Process;
use testkit::{needs_ours, needs_root, programs, test};

/// A service whose child does what it is told, as the user "postfix", and another service.
struct Scene {
    postfix: Instance,
}

/// The names of services and programs; the preset goes by the latter.
const HOSTILE: &str = "smtpd";
const OTHER: &str = "cleanup";

impl Scene {
    fn free() -> Self {
        Self::with("")
    }

    fn confined() -> Self {
        needs_ours("the original has no master.toml");
        Self::with("[service.\"smtpd/unix\"]\nsandbox = [\"postfix\", \"required\"]\n")
    }

    fn with(toml: &str) -> Self {
        needs_root("to change users");
        let mut postfix = Instance::bare();
        postfix.unwatched("a hostile child would have to leave the watch alone");
        postfix.install(&programs::executor(), "master-exec");
        for name in [HOSTILE, OTHER] {
            postfix.install(&programs::example("inside"), name);
            postfix.service(&format!("{name} unix - n n - 1 {name}"));
        }
        layout::replace(&postfix.configuration().join("master.toml"), toml);
        postfix.start();
        let scene = Self { postfix };
        let (uid, gid) = layout::mail_owner();
        for name in [HOSTILE, OTHER] {
            for call in [
                format!("{} 0 0", libc::SYS_setgroups),
                format!("{} {gid}", libc::SYS_setgid),
                format!("{} {uid}", libc::SYS_setuid),
            ] {
                assert_eq!(scene.ask(name, &format!("call {call}")), "0", "{name}");
            }
        }
        scene
    }

    #[track_caller]
    fn ask(&self, name: &str, command: &str) -> String {
        let socket = self.postfix.socket("private", name);
        let mut stream = UnixStream::connect(socket).expect("a listener");
        stream.set_read_timeout(Some(SOON)).expect("a time limit");
        writeln!(stream, "{command}").expect("a connection");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }

    fn hostile(&self, command: &str) -> String {
        self.ask(HOSTILE, command)
    }

    fn call(&self, number: libc::c_long, rest: &str) -> String {
        self.hostile(&format!("call {number} {rest}"))
    }

    fn pid(&self, name: &str) -> String {
        self.ask(name, &format!("call {}", libc::SYS_getpid))
    }

    /// The other service serves, with the child that it had.
    fn other_serves(&self) {
        assert_eq!(self.ask(OTHER, "open /dev/null"), "ok");
    }
}

/// Processes of a child that are in sessions of their own.
fn left_behind(parent: &str) -> Vec<Process> {
    let of = |status: &str, key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned())
    };
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let processes = processes.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let is_leader = getpgid(Some(Pid::from_raw(pid))).ok()?.as_raw() == pid;
        let is_of = of(&status, "PPid:").as_deref() == Some(parent);
        (is_leader && is_of).then_some(Process(pid))
    });
    processes.collect()
}

fn end(processes: &[Process]) {
    for process in processes {
        process.signal(nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn a_free_child_forks_and_leaves_processes_behind() {
    let scene = Scene::free();
    let pid = scene.pid(HOSTILE);
    assert_eq!(scene.hostile("fork 50"), "50");
    let processes = left_behind(&pid);
    assert_eq!(processes.len(), 50);
    scene.other_serves();
    let master = scene.postfix.master_process();
    master.signal(nix::sys::signal::Signal::SIGTERM);
    until(SOON, "the master's end", || !master.runs());
    let is_left = |process: &&Process| process.runs();
    assert_eq!(processes.iter().filter(is_left).count(), 50);
    end(&processes);
}

#[test]
fn a_confined_child_cannot_fork_and_leaves_nothing_behind() {
    let mut scene = Scene::confined();
    let pid = scene.pid(HOSTILE);
    assert_eq!(scene.hostile("fork 50"), "0");
    assert!(left_behind(&pid).is_empty());
    assert_eq!(scene.hostile("thread"), "error 11");
    scene.other_serves();
    scene.postfix.stop();
}

#[test]
fn a_free_child_executes_any_program() {
    let scene = Scene::free();
    assert_eq!(scene.hostile("execute /bin/true"), "ok");
}

#[test]
fn a_confined_child_executes_nothing() {
    let scene = Scene::confined();
    assert_eq!(scene.hostile("execute /bin/true"), "error 11");
    scene.other_serves();
}

/// 2 GiB of memory.
const MUCH: &str = "memory 2147483648";

#[test]
fn a_free_child_has_as_much_memory_as_it_asks_for() {
    assert_eq!(Scene::free().hostile(MUCH), "ok");
}

#[test]
fn a_confined_child_has_a_limit_of_memory_and_descriptors() {
    let scene = Scene::confined();
    assert_eq!(scene.hostile(MUCH), format!("error {}", libc::ENOMEM));
    let opened: usize = scene
        .hostile("descriptors 100000")
        .parse()
        .expect("a number");
    assert!((4000..4096).contains(&opened), "{opened}");
    scene.other_serves();
}

/// Each call comes to the kernel, which says what is wrong with the arguments.
#[test]
fn a_free_child_makes_any_system_call_and_has_the_masters_descriptors() {
    let scene = Scene::free();
    for (number, arguments, error) in [
        (libc::SYS_clone3, "0 0", libc::EINVAL),
        (libc::SYS_memfd_create, "0 0", libc::EFAULT),
        (libc::SYS_execveat, "-1 0 0 0 0", libc::EFAULT),
        (libc::SYS_keyctl, "-1 0 0", libc::EOPNOTSUPP),
        (libc::SYS_seccomp, "1 0 0", libc::EFAULT),
    ] {
        let answer = scene.call(number, arguments);
        assert_eq!(answer, format!("error {error}"), "{number} {arguments}");
    }
    // A system may forbid these to users (sysctl), which is EPERM or ENOSPC then.
    let uring = scene.call(libc::SYS_io_uring_setup, "1 0");
    let spaces = scene.call(libc::SYS_unshare, &libc::CLONE_NEWUSER.to_string());
    for (answer, allowed) in [
        (uring, format!("error {}", libc::EFAULT)),
        (spaces, "0".into()),
    ] {
        if answer != allowed {
            testkit::note(&format!("this system forbids a call to users: {answer}"));
        }
    }
    let limits = scene.hostile("read /proc/self/limits");
    let limit = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let limit = limit.and_then(|values| values.split_whitespace().next());
    let limit: usize = limit.expect("a limit").parse().expect("a number");
    let opened = scene.hostile("descriptors 2000000");
    let opened: usize = opened.parse().expect("a number");
    assert!(
        (limit.saturating_sub(30)..limit).contains(&opened),
        "{opened} of {limit}"
    );
    scene.other_serves();
}

/// A process that is as good as root's: the master is not its own.
#[test]
fn no_child_changes_the_masters_limits_priority_or_signals() {
    let scene = Scene::free();
    let master = scene.postfix.master_process().0;
    let own = libc::F_SETOWN;
    let (set_signal, term) = (10, libc::SIGTERM);
    for (number, arguments) in [
        (
            libc::SYS_setpriority,
            format!("{} {master} 19", libc::PRIO_PROCESS),
        ),
        (
            libc::SYS_prlimit64,
            format!("{master} {} 0 0", libc::RLIMIT_NOFILE),
        ),
        (libc::SYS_kcmp, format!("{master} {master} 1 0 0")),
        (libc::SYS_rt_sigqueueinfo, format!("{master} {term} 0")),
    ] {
        let answer = scene.call(number, &arguments);
        assert!(
            answer.starts_with("error "),
            "{number} {arguments}: {answer}"
        );
    }
    for file in [
        "oom_score_adj",
        "clear_refs",
        "coredump_filter",
        "autogroup",
    ] {
        let answer = scene.hostile(&format!("create /proc/{master}/{file}"));
        assert_eq!(answer, "error 13", "{file}");
    }
    // The kernel does not send the signal of a descriptor to a process of another user; nor does a
    // descriptor that blocks matter to the master.
    let asynchronous = libc::O_ASYNC;
    for fd in 3..=6 {
        for (command, value) in [
            (own, master),
            (set_signal, term),
            (libc::F_SETFL, asynchronous),
        ] {
            let answer = scene.call(libc::SYS_fcntl, &format!("{fd} {command} {value}"));
            assert_eq!(answer, "0", "{fd} {command}");
        }
    }
    scene.other_serves();
    assert!(scene.postfix.master_process().runs());
    // The hostile child takes clients on its listener, which blocks now.
    assert_eq!(scene.hostile("open /dev/null"), "ok");
}

/// Where the queue manager keeps messages.
fn message(scene: &Scene) -> String {
    let path = scene.postfix.queue().join("active/message");
    fs::write(&path, "text").expect("a message");
    let (uid, gid) = layout::mail_owner();
    chown(&path, Some(uid), Some(gid)).expect("an owner");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
    path.display().to_string()
}

fn is_empty(path: &str) -> bool {
    fs::metadata(Path::new(path)).expect("a message").len() == 0
}

#[test]
fn a_free_child_reads_and_changes_messages_of_the_queue() {
    let scene = Scene::free();
    let message = message(&scene);
    assert_eq!(scene.hostile(&format!("read {message}")), "text");
    assert_eq!(scene.hostile(&format!("create {message}")), "ok");
    assert!(is_empty(&message));
}

#[test]
fn a_confined_child_neither_reads_nor_changes_messages_of_the_queue() {
    let scene = Scene::confined();
    let message = message(&scene);
    let truncate = format!("{message}2");
    assert_eq!(scene.hostile(&format!("read {message}")), "error 13");
    assert_eq!(scene.hostile(&format!("create {message}")), "error 13");
    assert_eq!(scene.hostile(&format!("create {truncate}")), "error 13");
    let data = scene.postfix.data().join("file");
    assert_eq!(
        scene.hostile(&format!("create {}", data.display())),
        "error 13"
    );
    assert!(!is_empty(&message));
}

#[test]
fn no_child_traces_the_master_or_opens_its_memory() {
    let mut scenes = vec![Scene::free()];
    if !testkit::is_original() {
        scenes.push(Scene::confined());
    }
    for scene in scenes {
        let master = scene.postfix.master_process().0;
        let answer = scene.call(
            libc::SYS_ptrace,
            &format!("{} {master} 0 0", libc::PTRACE_SEIZE),
        );
        assert_eq!(answer, "error 1");
        assert_eq!(
            scene.hostile(&format!("open /proc/{master}/mem")),
            "error 13"
        );
        assert_eq!(
            scene.call(libc::SYS_kill, &format!("{master} 0")),
            "error 1"
        );
    }
}

#[test]
fn a_free_child_traces_and_ends_children_of_other_services() {
    let scene = Scene::free();
    let other = scene.pid(OTHER);
    let seize = format!("{} {other} 0 0", libc::PTRACE_SEIZE);
    // A system may forbid this to all processes (sysctl kernel.yama.ptrace_scope).
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope");
    if yama.is_ok_and(|scope| scope.trim() != "0") {
        testkit::note("this system lets no process trace another");
    } else {
        // A process that has changed its user cannot be traced before its next exec.
        let answer = scene.call(libc::SYS_ptrace, &seize);
        assert!(["0", "error 1"].contains(&&*answer), "{answer}");
    }
    let killed = scene.call(libc::SYS_kill, &format!("{other} {}", libc::SIGKILL));
    assert_eq!(killed, "0");
    let process = Process(other.parse().expect("a process"));
    until(SOON, "the child to end", || !process.runs());
}

#[test]
fn a_confined_child_neither_traces_nor_signals_children_of_other_services() {
    let scene = Scene::confined();
    let other = scene.pid(OTHER);
    let own = scene.pid(HOSTILE);
    let kill = libc::SIGKILL;
    for (number, arguments) in [
        (
            libc::SYS_ptrace,
            format!("{} {other} 0 0", libc::PTRACE_SEIZE),
        ),
        (libc::SYS_process_vm_readv, format!("{other} 0 0 0 0 0")),
        (libc::SYS_pidfd_open, format!("{other} 0")),
        (libc::SYS_kill, format!("{other} {kill}")),
        (libc::SYS_kill, format!("{other} 0")),
        (libc::SYS_tkill, format!("{other} {kill}")),
        (libc::SYS_tgkill, format!("{other} {other} {kill}")),
        (libc::SYS_rt_sigqueueinfo, format!("{other} {kill} 0")),
    ] {
        let answer = scene.call(number, &arguments);
        assert!(
            answer.starts_with("error "),
            "{number} {arguments}: {answer}"
        );
    }
    assert_eq!(
        scene.hostile(&format!("open /proc/{other}/mem")),
        "error 13"
    );
    assert_eq!(
        scene.hostile(&format!("read /proc/{other}/environ")),
        "error 13"
    );
    // It can signal itself, as abort(3) does.
    assert_eq!(scene.call(libc::SYS_kill, &format!("{own} 0")), "0");
    assert_eq!(scene.pid(OTHER), other);
}

#[test]
fn a_confined_child_finds_no_way_around_its_filter() {
    let scene = Scene::confined();
    let clone = libc::CLONE_NEWUSER | libc::SIGCHLD;
    for (number, arguments, error) in [
        (
            libc::SYS_unshare,
            libc::CLONE_NEWUSER.to_string(),
            libc::EPERM,
        ),
        (libc::SYS_clone, format!("{clone} 0 0 0 0"), libc::EPERM),
        (libc::SYS_clone3, "0 0".to_owned(), libc::ENOSYS),
        (libc::SYS_io_uring_setup, "1 0".to_owned(), libc::EPERM),
        (libc::SYS_memfd_create, "0 0".to_owned(), libc::EPERM),
        (libc::SYS_execveat, "0 0 0 0 0".to_owned(), libc::EPERM),
        (libc::SYS_bpf, "0 0 0".to_owned(), libc::EPERM),
        (libc::SYS_userfaultfd, "0".to_owned(), libc::EPERM),
        (libc::SYS_keyctl, "0 0 0".to_owned(), libc::EPERM),
        (libc::SYS_open_by_handle_at, "0 0 0".to_owned(), libc::EPERM),
        (libc::SYS_setuid, "0".to_owned(), libc::EPERM),
        // A call that is newer than the list of them, open_tree_attr(2), and one that is none yet.
        (467, "0 0 0 0 0".to_owned(), libc::ENOSYS),
        (1000, "0".to_owned(), libc::ENOSYS),
        // Another filter can only take away more.
        (libc::SYS_seccomp, "1 0 0".to_owned(), libc::EFAULT),
    ] {
        let answer = scene.call(number, &arguments);
        assert_eq!(answer, format!("error {error}"), "{number} {arguments}");
    }
    for path in [
        "/proc/self/mem",
        "/proc/self/root/etc/../proc/self/mem",
        "/dev/mem",
        "/dev/fuse",
        "/proc/self/exe",
        "/sys/kernel",
    ] {
        let answer = scene.hostile(&format!("create {path}"));
        assert!(answer.starts_with("error "), "{path}: {answer}");
    }
    assert_eq!(scene.hostile("open /proc/self/mem"), "error 13");
    scene.other_serves();
}
