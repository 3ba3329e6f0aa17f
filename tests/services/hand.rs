//! Programs that are run without a master.

use std::io::Write;
use std::process::{Command, Stdio};

use testkit::instance::SOON;
use testkit::programs::service;
use testkit::run::run;
use testkit::test;

/// Runs a program with this input and returns its output.
fn output(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("a reader");
    drop(stdin);
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_program_that_is_run_by_hand_says_what_to_do() {
    let mut command = Command::new(service("echo"));
    let finished = run(command.env_remove("GENERATION"), SOON).expect_failure();
    assert_eq!(
        finished.stderr,
        "echo: fatal: echo is run by master(8), which gives it its listeners; to serve one client \
         on standard input and output, use -S\n"
    );
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn a_program_with_a_master_that_gives_it_nothing_says_what_is_missing() {
    let mut command = Command::new("sh");
    command.env("GENERATION", "1");
    command.args(["-c", "exec 5>&-; exec \"$0\" -t inet -V"]);
    let finished = run(command.arg(service("echo")), SOON).expect_failure();
    assert_eq!(
        finished.stderr,
        "echo: fatal: descriptor 5 from the master: Bad file descriptor\n"
    );
}

#[test]
fn one_client_is_served_on_standard_input_and_output() {
    let text = "0123456789\n".repeat(10_000);
    let echo = output(Command::new(service("echo")).arg("-S"), &text);
    assert!(echo == text, "{} bytes came back", echo.len());
    let daytime = output(Command::new(service("daytime")).arg("-S"), "");
    assert!(daytime.ends_with("-UTC\r\n"));
}

#[test]
fn a_child_of_an_ordered_pool_serves_one_there() {
    let said = output(Command::new(service("ordered")).arg("-S"), "hello\n");
    let (pid, echo) = said.split_once('\n').expect("a greeting");
    assert!(pid.parse::<u32>().is_ok(), "{pid}");
    assert_eq!(echo, "hello\n");
}

#[test]
fn a_service_for_many_clients_serves_one_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let target = listener.local_addr().expect("an address");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the proxy");
        std::io::copy(&mut stream.try_clone().expect("a descriptor"), &mut stream)
    });
    let mut proxy = Command::new(service("proxy"));
    let echo = output(proxy.args(["-S", &format!("to={target}")]), "hello\n");
    assert_eq!(echo, "hello\n");
    server.join().expect("a thread").expect("a connection");
}

#[test]
fn an_option_that_does_not_exist_is_named() {
    let mut command = Command::new(service("echo"));
    let finished = run(command.arg("-x"), SOON).expect_failure();
    assert_eq!(finished.stderr, "echo: fatal: invalid option: -x\n");
}

#[test]
fn without_a_main_cf_there_are_defaults_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let table = directory.path().join("table.cf");
    std::fs::write(&table, "").expect("a file");
    for place in [directory.path(), &table] {
        let mut whois = Command::new(service("whois"));
        whois.env("MAIL_CONFIG", place).env_remove("MAIL_LOGTAG");
        whois.args(["-S", "-o", "greeting=$syslog_name of $mail_owner"]);
        let answer = output(&mut whois, "");
        assert_eq!(answer.lines().next(), Some("master of nobody"));
    }
    let toml = directory.path().join("master.toml");
    std::fs::write(toml, "mail_owner = \"daemon\"\n").expect("a file");
    let mut whois = Command::new(service("whois"));
    whois.env("MAIL_CONFIG", directory.path());
    whois.args(["-S", "-o", "greeting=$mail_owner"]);
    assert_eq!(output(&mut whois, "").lines().next(), Some("daemon"));
}
