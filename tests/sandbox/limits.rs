//! Limits, priorities, umask and processors.

use nix::libc;
use testkit::standalone::Standalone;
use testkit::{needs_root, note, test};

use crate::stage::{CHILDREN, ask, configure, start, started, status};

/// A line of a child's /proc/self/limits: soft, hard, unit.
#[track_caller]
fn limit(standalone: &mut Standalone, name: &str, what: &str) -> String {
    let limits = ask(standalone, name, "read /proc/self/limits");
    let line = limits.lines().find_map(|line| line.strip_prefix(what));
    let line = line.unwrap_or_else(|| panic!("{what}: {limits:?}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_limit_is_the_childs() {
    for standalone in Standalone::all() {
        let mut standalone = start(
            standalone,
            "limit_nofile = \"100:200\"\nlimit_core = 0\nlimit_as = \"4G\"\nlimit_cpu = \"10m:20m\"\n\
             limit_data = \"2G:3G\"\nlimit_fsize = \"1M\"\nlimit_nproc = 1000\nlimit_stack = \"4M\"\n\
             limit_memlock = \"16K\"",
        );
        for name in CHILDREN {
            for (what, expected) in [
                ("Max open files", "100 200 files"),
                ("Max core file size", "0 0 bytes"),
                ("Max address space", "4294967296 4294967296 bytes"),
                ("Max cpu time", "600 1200 seconds"),
                ("Max data size", "2147483648 3221225472 bytes"),
                ("Max file size", "1048576 1048576 bytes"),
                ("Max processes", "1000 1000 processes"),
                ("Max stack size", "4194304 4194304 bytes"),
                ("Max locked memory", "16384 16384 bytes"),
            ] {
                assert_eq!(limit(&mut standalone, name, what), expected, "{name}");
            }
        }
    }
}

#[test]
fn a_reload_changes_limits_and_takes_them_away() {
    let mut standalone = started("limit_core = 4096");
    for (settings, core) in [
        ("", "0 unlimited bytes"),
        ("limit_core = \"8K:1M\"", "8192 1048576 bytes"),
        ("", "0 unlimited bytes"),
    ] {
        assert!(limit(&mut standalone, "rust", "Max core file size") != core);
        configure(&standalone, settings);
        let reloaded = standalone.reload();
        assert!(reloaded.contains("reload done"), "{reloaded}");
        for name in CHILDREN {
            let found = limit(&mut standalone, name, "Max core file size");
            let found = found.replace("unlimited unlimited", "0 unlimited");
            assert_eq!(found, core, "{name}");
        }
    }
}

#[test]
fn priorities_umask_and_processors_are_the_childs() {
    let mut standalone = started(
        "nice = 17\nionice = \"best-effort:6\"\noom_score_adjust = 500\numask = \"0027\"\n\
         cpu_affinity = [0]",
    );
    for name in CHILDREN {
        assert_eq!(status(&mut standalone, name, "Umask"), "0027", "{name}");
        assert_eq!(
            status(&mut standalone, name, "Cpus_allowed_list"),
            "0",
            "{name}"
        );
        let score = ask(&mut standalone, name, "read /proc/self/oom_score_adj");
        assert_eq!(score, "500", "{name}");
        // The kernel's getpriority is 20 less the nice value.
        let nice = format!("call {} 0 0", libc::SYS_getpriority);
        assert_eq!(ask(&mut standalone, name, &nice), "3", "{name}");
        let ionice = format!("call {} 1 0", libc::SYS_ioprio_get);
        let best_effort_6 = (2 << 13) | 6;
        assert_eq!(
            ask(&mut standalone, name, &ionice),
            best_effort_6.to_string(),
            "{name}"
        );
    }
}

/// The number of the capability that lowers scores.
const CAP_SYS_RESOURCE: u32 = 24;

/// Whether this process has a capability.
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.expect("a set of capabilities") & (1 << number) != 0
}

#[test]
fn root_may_raise_what_others_may_not() {
    needs_root("to raise priorities");
    let mut settings = "nice = -5\nionice = \"realtime:3\"\n".to_owned();
    let has_resource = has_capability(CAP_SYS_RESOURCE);
    if has_resource {
        settings += "oom_score_adjust = -500\n";
    } else {
        note("without CAP_SYS_RESOURCE no score is lowered");
    }
    let mut standalone = started(&settings);
    for name in CHILDREN {
        let nice = format!("call {} 0 0", libc::SYS_getpriority);
        assert_eq!(ask(&mut standalone, name, &nice), "25", "{name}");
        let ionice = format!("call {} 1 0", libc::SYS_ioprio_get);
        assert_eq!(
            ask(&mut standalone, name, &ionice),
            ((1 << 13) | 3).to_string(),
            "{name}"
        );
        let score = ask(&mut standalone, name, "read /proc/self/oom_score_adj");
        assert!(!has_resource || score == "-500", "{name}");
    }
}
