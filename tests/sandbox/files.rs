//! The files that can be opened.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use testkit::standalone::Standalone;
use testkit::test;

use crate::stage::{CHILDREN, ask, configure, stage};

/// A directory with files beside and below it, for anybody.
fn prepare(standalone: &Standalone) {
    for directory in ["read", "write", "other"] {
        let path = standalone.path().join(directory);
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("a mode");
        let file = path.join("file");
        fs::write(&file, "text").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("a mode");
    }
}

#[test]
fn nothing_but_the_paths_can_be_opened() {
    for standalone in Standalone::all() {
        let mut standalone = stage(standalone);
        prepare(&standalone);
        let path = |name: &str| standalone.path().join(name).display().to_string();
        let [rust, python, read, write, other] =
            ["inside", "inside.py", "read", "write", "other"].map(path);
        configure(
            &standalone,
            &format!(
                "sandbox = \"required\"\nread_write_paths = [\"{write}\"]\n\
                 read_only_paths = [\"/usr\", \"/lib\", \"/lib64\", \"/etc/ld.so.cache\", \"{rust}\", \
                 \"{python}\", \"{read}\", \"$queue_directory\"]"
            ),
        );
        // The queue directory must be there, which the first start makes.
        fs::create_dir_all(standalone.queue()).expect("a directory");
        if standalone.uid() != 0 {
            let owner = Some(standalone.uid());
            for directory in [
                standalone.queue().as_path(),
                standalone.queue().parent().unwrap(),
            ] {
                std::os::unix::fs::chown(directory, owner, owner).expect("an owner");
            }
        }
        standalone.start();
        for name in CHILDREN {
            let mut answer = |command: String| ask(&mut standalone, name, &command);
            assert_eq!(answer(format!("read {read}/file")), "text", "{name}");
            assert_eq!(answer(format!("create {read}/file")), "error 13", "{name}");
            assert_eq!(
                answer(format!("create {read}/{name}")),
                "error 13",
                "{name}"
            );
            assert_eq!(answer(format!("create {write}/file")), "ok", "{name}");
            assert_eq!(answer(format!("create {write}/{name}")), "ok", "{name}");
            assert_eq!(answer(format!("open {other}/file")), "error 13", "{name}");
            assert_eq!(
                answer(format!("open {write}/../other/file")),
                "error 13",
                "{name}"
            );
            assert_eq!(answer("open /etc/passwd".to_owned()), "error 13", "{name}");
            assert_eq!(
                answer("open /proc/self/status".to_owned()),
                "error 13",
                "{name}"
            );
            assert_eq!(answer("open /usr/bin/env".to_owned()), "ok", "{name}");
        }
    }
}

#[test]
fn a_program_that_is_not_within_the_paths_is_refused_with_what_it_needs() {
    let mut standalone = stage(Standalone::new());
    configure(&standalone, "");
    standalone.start();
    configure(&standalone, "read_only_paths = [\"/etc\", \"/usr/lib\"]");
    let refused = standalone.reload();
    for needed in [
        "/inside is not within",
        "/inside.py is not within",
        "/usr/bin/python3",
    ] {
        assert!(refused.contains(needed), "{needed}: {refused}");
    }
    assert!(refused.contains("reload failed"), "{refused}");
    configure(
        &standalone,
        "read_only_paths = [\"/etc\", \"/no/such/path\"]",
    );
    let refused = standalone.reload();
    let words = "expected a path that is there: /no/such/path: No such file or directory";
    assert!(refused.contains(words), "{refused}");
    assert!(ask(&mut standalone, "rust", "open /etc/passwd") == "ok");
}
