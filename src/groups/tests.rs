//! What is written into groups, and where they are.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::sys::testing;

fn setting(file: &'static str, text: &str, usual: &'static str) -> Setting {
    Setting {
        name: "name".into(),
        shown: text.to_owned(),
        file: file.into(),
        value: Value::Text(text.to_owned()),
        usual: usual.into(),
    }
}

fn group(settings: impl Into<Vec<Setting>>) -> Group {
    Group {
        path: "/group".into(),
        settings: settings.into(),
        unsure: false,
        remnants: false,
        released: false,
    }
}

#[test]
fn a_reload_writes_what_has_changed_and_what_is_usual_for_what_is_gone() {
    let former = [
        setting("memory.max", "1", "max"),
        setting("pids.max", "2", "max"),
        setting("cpu.weight", "3", "100"),
    ];
    let group = group([
        setting("memory.max", "1", "max"),
        setting("pids.max", "5", "max"),
        setting("cpu.idle", "1", "0"),
    ]);
    let changed: Vec<_> = changes(Some(&former), &group).collect();
    let fault = Some("cannot set \"name\" of /group");
    let expected = [
        ("/group/cpu.weight", "100", None),
        ("/group/pids.max", "5", fault),
        ("/group/cpu.idle", "1", fault),
    ];
    let written = |write: &Write| {
        let file = write.file.display().to_string();
        (file, write.text.clone(), write.fault.clone())
    };
    assert_eq!(
        changed.iter().map(written).collect::<Vec<_>>(),
        expected.map(|(file, text, fault)| (file.into(), text.into(), fault.map(Into::into)))
    );
}

#[test]
fn all_limits_are_written_where_it_is_not_known_what_there_is() {
    let group = group([setting("pids.max", "5", "max")]);
    let changed: Vec<_> = changes(None, &group).collect();
    assert_eq!(changed.len(), tree::USUAL.len());
    let last = changed.last().unwrap();
    assert_eq!(last.file, Path::new("/group/pids.max"));
    assert!(last.text == "5" && last.fault.is_some());
    assert!(
        changed
            .iter()
            .all(|write| write.text != "max" || write.fault.is_none())
    );
}

/// A group in a directory of this process, which no other test has.
fn in_directory(test: &str) -> Option<(Groups, PathBuf)> {
    if !testing::in_own_process(&format!("groups::tests::{test}")) {
        return None;
    }
    let path = std::env::temp_dir().join(format!("master-groups-{}", std::process::id()));
    fs::create_dir(&path).unwrap();
    let mut groups = Groups::default();
    let group = Group {
        path: path.clone(),
        ..group([])
    };
    groups.groups.insert(0, group);
    Some((groups, path))
}

/// Waits until nothing is being written. What could not be.
fn wait(groups: &mut Groups) -> Vec<(usize, String)> {
    let (mut faults, mut now) = (Vec::new(), Duration::ZERO);
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !groups.changing.is_empty() {
        now += RETRY;
        faults.extend(groups.expire(now));
        assert!(
            std::time::Instant::now() < end,
            "still {:?}",
            groups.changing
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    faults
}

#[test]
fn a_change_of_limits_that_takes_long_is_not_overtaken_by_the_next() {
    let test = "a_change_of_limits_that_takes_long_is_not_overtaken_by_the_next";
    let Some((mut groups, path)) = in_directory(test) else {
        return;
    };
    // Writing into a FIFO that no process reads takes long.
    let slow = path.join("memory.high");
    nix::unistd::mkfifo(&slow, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for processes in ["10", "20", "30"] {
        let high = setting("memory.high", processes, "max");
        let limit = setting("pids.max", processes, "max");
        assert_eq!(groups.change(Duration::ZERO, 0, vec![high, limit]), None);
    }
    assert_eq!(groups.expire(RETRY), []);
    let reader = File::options().read(true).write(true).open(&slow).unwrap();
    let faults = wait(&mut groups);
    drop(reader);
    let processes = fs::read_to_string(path.join("pids.max")).unwrap();
    fs::remove_dir_all(path).unwrap();
    assert_eq!((faults, &*processes), (Vec::new(), "30"));
}

#[test]
fn limits_that_could_not_be_changed_are_written_by_the_next_reload() {
    let test = "limits_that_could_not_be_changed_are_written_by_the_next_reload";
    let Some((mut groups, path)) = in_directory(test) else {
        return;
    };
    let limit = || vec![setting("pids.max", "10", "max")];
    let file = path.join("pids.max");
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
    let fault = groups.change(Duration::ZERO, 0, limit());
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    assert!(fault.is_some_and(|fault| fault.contains("cannot change limits")));
    fs::create_dir(&file).unwrap();
    assert_eq!(groups.change(Duration::ZERO, 0, limit()), None);
    let faults = wait(&mut groups);
    fs::remove_dir(&file).unwrap();
    assert!(
        matches!(&faults[..], [(0, why)] if why.contains("cannot set")),
        "{faults:?}"
    );
    assert_eq!(groups.change(Duration::ZERO, 0, limit()), None);
    let faults = wait(&mut groups);
    let written = fs::read_to_string(file).unwrap();
    // Nothing is to be done any more.
    assert_eq!(groups.change(Duration::ZERO, 0, limit()), None);
    fs::remove_dir_all(path).unwrap();
    assert_eq!((faults, &*written), (Vec::new(), "10"));
    assert!(groups.changing.is_empty());
}

#[test]
fn names_of_groups_are_safe_and_different() {
    let name = |service: &str| tree::name(3, service, 0);
    assert_eq!(name("inet-[::1]:25"), "service-3-inet-%5b::1%5d:25");
    assert_eq!(name("unix-private/.."), "service-3-unix-private%2f..");
    let long = "x".repeat(5000);
    let other = format!("{long}y");
    assert!(name(&long).len() < 200);
    assert_ne!(name(&long), name(&other));
    assert_eq!(tree::name(3, "fifo-x", 2), "service-3.2-fifo-x");
    let odd = "\u{e9}\n\0/%";
    assert!(name(odd).bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
}

#[test]
fn the_group_is_found_below_the_mount_that_has_it() {
    let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  33 31 0:30 /other /mnt/part rw - cgroup2 cgroup2 rw\n\
                  34 31 0:30 / /sys/fs/c\\040group rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
    let found = home::locate("1:cpu:/a\n0::/system.slice/x.service\n", mounts);
    let path = Path::new("/sys/fs/c group/system.slice/x.service");
    assert_eq!(found.as_deref(), Some(path));
    assert_eq!(home::locate("1:cpu:/a\n", mounts), None);
    // Outside of the process's namespace.
    assert_eq!(home::locate("0::/../x\n", mounts), None);
    assert_eq!(
        home::locate("0::/other/x\n", mounts).as_deref(),
        Some(Path::new("/mnt/part/x"))
    );
}

#[test]
fn a_group_whose_processes_have_not_ended_is_not_used_again() {
    let Some((mut groups, home)) =
        in_directory("a_group_whose_processes_have_not_ended_is_not_used_again")
    else {
        return;
    };
    let path = home.display();
    let state = format!(r#"{{"delegated": "{path}", "path": "{path}", "known": ["memory"]}}"#);
    groups.home = Some(Ok(serde_json::from_str(&state).unwrap()));
    groups.groups.clear();
    // A lower limit of a group with processes takes long to write.
    let former = home.join("service-3-x");
    fs::create_dir(&former).unwrap();
    let slow = former.join("memory.max");
    nix::unistd::mkfifo(&slow, nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::alarm::set(20);
    let limit = vec![setting("memory.max", "1", "max")];
    assert_eq!(groups.set(Duration::ZERO, 3, "x", limit), [""; 0]);
    let group = groups.path(3).unwrap().to_owned();
    let limit = fs::read_to_string(group.join("memory.max"));
    fs::remove_dir_all(&home).unwrap();
    assert_eq!(group, home.join("service-3.1-x"));
    assert_eq!(limit.unwrap(), "1");
}
