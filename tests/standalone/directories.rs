//! The directories for sockets and locks, and their permissions.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use testkit::instance::SOON;
use testkit::poll::until;
use testkit::process::Process;
use testkit::run::Running;
use testkit::standalone::Standalone;
use testkit::{needs_root, skip, test};

#[test]
fn a_directory_with_a_table_and_no_main_cf_stands_alone() {
    let mut standalone = Standalone::of_a_user();
    fs::write(
        standalone.path().join("master.cf"),
        "a unix - - - - - true\n",
    )
    .unwrap();
    let mut master = standalone.master(&["-d"]);
    master.arg("-c").arg(standalone.path()).process_group(0);
    standalone.start_as(&mut master);
    assert!(standalone.queue().join("private/a").exists());
}

#[test]
fn a_main_cf_beside_a_table_that_was_named_is_not_read_with_a_warning() {
    let mut standalone = Standalone::of_a_user();
    fs::write(standalone.path().join("main.cf"), "nonsense").unwrap();
    standalone.write_table("a unix - - - - - true\n").start();
    standalone.wait_for_line("main.cf is not read, because a service table was named");
}

#[test]
fn master_toml_says_where_everything_is() {
    let mut standalone = Standalone::new();
    let queue = standalone.path().join("elsewhere/queue");
    let data = standalone.path().join("elsewhere/data");
    standalone.write_toml(&format!(
        "queue_directory = \"{}\"\ndata_directory = \"{}\"\n",
        queue.display(),
        data.display()
    ));
    standalone.write_table("a unix n - - - - true\n").start();
    assert!(queue.join("public/a").exists());
    assert!(queue.join("pid/master.pid").exists());
    assert!(data.join("master.lock").exists());
}

#[test]
fn roots_services_have_their_place_below_run_and_var() {
    needs_root("to hide the system's own /run");
    let mut standalone = Standalone::new();
    standalone.write_table("a unix n - - - - true\n");
    let master = standalone.master(&["-d"]);
    // In a mount namespace in which both are empty.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg("mount -t tmpfs none /run && mount -t tmpfs none /var/lib && exec \"$@\"")
        .args(["sh".as_ref(), master.get_program()])
        .args(master.get_args())
        .process_group(0);
    standalone.start_as(&mut command);
    let root = format!("/proc/{}/root", standalone.process().0);
    for (path, mode) in [
        ("run/master", 0o755),
        ("run/master/pid", 0o755),
        ("run/master/public", 0o755),
        ("run/master/private", 0o700),
        ("var/lib/master", 0o700),
    ] {
        let metadata = fs::metadata(format!("{root}/{path}")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
    }
    assert!(fs::exists(format!("{root}/run/master/public/a")).unwrap());
}

#[test]
fn a_directory_in_which_others_may_write_is_refused() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("a unix - - - - - true\n");
    fs::create_dir_all(standalone.queue()).unwrap();
    fs::set_permissions(standalone.queue(), fs::Permissions::from_mode(0o777)).unwrap();
    let said = standalone.fail(&["-d"]).stderr;
    let remedy = format!("\"chmod go-w {}\" ends that", standalone.queue().display());
    let words = format!("others may write to it (mode 777): {remedy}");
    assert!(said.contains(&words), "{said}");
}

#[test]
fn a_directory_of_a_stranger_is_refused() {
    needs_root("to have a stranger");
    let mut standalone = Standalone::new();
    standalone.write_table("a unix - - - - - true\n");
    fs::create_dir_all(standalone.queue()).unwrap();
    std::os::unix::fs::chown(standalone.queue(), Some(4711), None).unwrap();
    let said = standalone.fail(&["-d"]).stderr;
    assert!(
        said.contains("belongs to another user, whose ID is 4711"),
        "{said}"
    );
}

#[test]
fn a_missing_directory_of_a_service_is_named_with_the_command_that_makes_it() {
    let mut standalone = Standalone::of_a_user();
    standalone.write_table("deep/a unix n - - - - true\n");
    let said = standalone.fail(&["-d"]).stderr;
    let expected = format!("\"mkdir -p {}/public/deep\"", standalone.queue().display());
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_command_that_begins_with_a_slash_is_a_path_of_its_own() {
    let mut standalone = Standalone::of_a_user();
    let mark = standalone.path().join("mark");
    let script = standalone.script(
        "script",
        &format!("touch {}; read -r byte <&6", mark.display()),
    );
    let table = format!("woken fifo - - - 60 1 {}", script.display());
    standalone.write_table(&table).start();
    until(SOON, "the script to run", || mark.exists());
}

#[test]
fn other_commands_lie_beside_the_master() {
    let mut standalone = Standalone::of_a_user();
    let mark = standalone.path().join("mark");
    standalone.script(
        "beside",
        &format!("touch {}; read -r byte <&6", mark.display()),
    );
    standalone
        .write_table("woken fifo - - - 60 1 beside")
        .start();
    until(SOON, "the script to run", || mark.exists());
}

/// A user may ask the kernel to be told before one of its files is opened (a lease), and need not answer
/// for 45 seconds.
#[test]
fn mail_owner_cannot_keep_the_master_from_starting_by_a_lease() {
    needs_root("services run as another user");
    if Command::new("python3").arg("--version").output().is_err() {
        skip("no python3");
    }
    let mut standalone = Standalone::new();
    standalone.write_table("a unix n - - - 5 /bin/cat\n");
    let (queue, data) = (standalone.queue(), standalone.path().join("data"));
    standalone.write_toml(&format!(
        "queue_directory = \"{}\"\ndata_directory = \"{}\"\n",
        queue.display(),
        data.display()
    ));
    standalone.start();
    standalone.stop_by(Signal::SIGTERM);
    let lock = data.join("master.lock");
    let owner = fs::metadata(&lock).expect("a lock file").uid();
    let script = "import fcntl, signal, sys\n\
                  signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                  file = open(sys.argv[1], 'r+')\n\
                  fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                  print('held', flush=True)\nsignal.pause()\n";
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(&lock).uid(owner);
    let mut holder = Running::start(&mut command);
    until(SOON, "the lease", || holder.stdout().contains("held"));
    standalone.start();
    standalone.wait_for_line("a process that is no master has a lease on it");
    assert!(!holder.has_ended());
    Process(holder.pid()).signal(Signal::SIGKILL);
    standalone.stop_by(Signal::SIGTERM);
}
