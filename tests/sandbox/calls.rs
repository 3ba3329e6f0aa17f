//! The filter of system calls.

use nix::libc;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

use crate::stage::{CHILDREN, ask, configure, start, started, status};

/// What a call with these numbers answers.
#[track_caller]
fn call(standalone: &mut Standalone, name: &str, number: libc::c_long, rest: &str) -> String {
    ask(standalone, name, &format!("call {number} {rest}"))
}

/// Calls of the baseline which without it fail with another error, or succeed.
const FORBIDDEN: [(libc::c_long, &str); 14] = [
    (libc::SYS_mount, "0 0 0 0 0"),
    (libc::SYS_umount2, "0 0"),
    (libc::SYS_ptrace, "0 0 0 0"),
    (libc::SYS_bpf, "99 0 0"),
    (libc::SYS_perf_event_open, "0 0 0 0 0"),
    (libc::SYS_kexec_load, "0 0 0 0"),
    (libc::SYS_init_module, "0 0 0"),
    (libc::SYS_keyctl, "0 0 0"),
    (libc::SYS_userfaultfd, "0"),
    (libc::SYS_unshare, "0"),
    (libc::SYS_setns, "0 0"),
    (libc::SYS_clock_settime, "0 0"),
    (libc::SYS_swapon, "0 0"),
    (libc::SYS_io_uring_setup, "0 0"),
];

#[test]
fn the_baseline_forbids_what_no_service_needs_and_nothing_else() {
    for standalone in Standalone::all() {
        let is_root = standalone.uid() == 0;
        let mut standalone = start(standalone, "system_call_filter = \"baseline\"");
        for name in CHILDREN {
            assert_eq!(status(&mut standalone, name, "Seccomp"), "2", "{name}");
            // Without root the kernel wants this beside a filter.
            let implied = if is_root { "0" } else { "1" };
            assert_eq!(
                status(&mut standalone, name, "NoNewPrivs"),
                implied,
                "{name}"
            );
            for (number, rest) in FORBIDDEN {
                let answer = call(&mut standalone, name, number, rest);
                assert_eq!(answer, "error 1", "{name} {number}");
            }
            // A new user namespace, and no such call.
            let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD).to_string() + " 0 0 0 0";
            assert_eq!(
                call(&mut standalone, name, libc::SYS_clone, &flags),
                "error 1"
            );
            let answer = call(&mut standalone, name, libc::SYS_clone3, "0 0");
            assert_eq!(answer, format!("error {}", libc::ENOSYS));
            assert_eq!(ask(&mut standalone, name, "thread"), "ok", "{name}");
            assert_eq!(
                ask(&mut standalone, name, "open /etc/passwd"),
                "ok",
                "{name}"
            );
        }
    }
}

#[test]
fn single_calls_are_forbidden_beside_the_baseline() {
    let mut standalone = started("system_call_filter = [\"~getppid\"]");
    for name in CHILDREN {
        assert_eq!(
            call(&mut standalone, name, libc::SYS_getppid, "0"),
            "error 1"
        );
        assert_eq!(
            call(&mut standalone, name, libc::SYS_unshare, "0"),
            "error 1"
        );
        let pid = call(&mut standalone, name, libc::SYS_getpid, "0");
        assert!(!pid.contains("error"), "{pid}");
    }
    configure(
        &standalone,
        "system_call_filter = [\"~socket\", \"~@debug\"]",
    );
    standalone.reload();
    for name in CHILDREN {
        assert_eq!(
            call(&mut standalone, name, libc::SYS_socket, "1 1 0"),
            "error 1"
        );
        let parent = call(&mut standalone, name, libc::SYS_getppid, "0");
        assert!(!parent.contains("error"), "{parent}");
    }
}

#[test]
fn a_list_of_calls_allows_these_alone() {
    let mut standalone = Standalone::new();
    standalone = crate::stage::stage(standalone);
    // What the child in Rust needs, without getppid.
    let calls = "accept4 access arch_prctl brk clone close connect execve exit exit_group fcntl fstat \
                 futex getcwd getpid getrandom gettid ioctl lseek madvise mmap mprotect mremap munmap \
                 newfstatat open openat poll ppoll pread64 prctl prlimit64 read readlink recvfrom \
                 rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sendto \
                 set_robust_list set_tid_address sigaltstack statx write writev";
    let calls: Vec<_> = calls
        .split_whitespace()
        .map(|call| format!("\"{call}\""))
        .collect();
    configure(
        &standalone,
        &format!("system_call_filter = [{}]", calls.join(", ")),
    );
    standalone.start();
    assert_eq!(ask(&mut standalone, "rust", "open /etc/passwd"), "ok");
    let answer = call(&mut standalone, "rust", libc::SYS_getppid, "0");
    assert_eq!(answer, "error 1");
    assert_eq!(ask(&mut standalone, "rust", "thread"), "ok");
}

#[test]
fn a_forbidden_call_can_end_the_process() {
    let mut standalone = started(
        "system_call_filter = \"baseline\"\nsystem_call_error_number = \"kill\"\nthrottle_time = 1",
    );
    let before = ask(&mut standalone, "rust", "open /etc/passwd");
    assert_eq!(before, "ok");
    let answer = call(&mut standalone, "rust", libc::SYS_swapon, "0 0");
    assert_eq!(answer, "");
    standalone.wait_for_line(&format!("killed by signal {}", libc::SIGSYS));
    until(SOON, "the service to serve again", || {
        ask(&mut standalone, "rust", "open /etc/passwd") == "ok"
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_x32_interface_is_no_way_around_the_filter() {
    let mut standalone = started("system_call_filter = \"baseline\"\nthrottle_time = 1");
    let x32 = 0x4000_0000 | libc::SYS_unshare;
    assert_eq!(call(&mut standalone, "rust", x32, "0"), "");
    standalone.wait_for_line(&format!("killed by signal {}", libc::SIGSYS));
}

#[test]
fn all_settings_go_together() {
    needs_root("to change users");
    let mut standalone = started(
        "limit_nofile = 64\nlimit_as = \"1G\"\nnice = 15\numask = \"0077\"\ncpu_affinity = \"0\"\n\
         user = \"nobody\"\nsupplementary_groups = [\"mail\"]\ncapability_bounding_set = []\n\
         no_new_privileges = true\nsystem_call_filter = [\"~seccomp\", \"~prctl\"]",
    );
    for name in CHILDREN {
        let status = ask(&mut standalone, name, "read /proc/self/status");
        for line in [
            "Umask:\t0077",
            "Uid:\t65534\t65534\t65534\t65534",
            "Groups:\t8 65534",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "Cpus_allowed_list:\t0",
        ] {
            assert!(status.contains(line), "{name}: {line}: {status}");
        }
    }
}
