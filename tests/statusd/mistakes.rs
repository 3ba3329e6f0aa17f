//! Errors in the configuration of a running master: all programs report the same line in the same
//! words.

use std::process::Command;

use testkit::instance::SOON;
use testkit::operator::{masterctl, read_document, told};
use testkit::run::run;
use testkit::test;

use crate::browser::{self, dom_with, summary};
use crate::real::Real;
use crate::site::Site;

const GOOD: &str = "hello unix n - - - 5 true\n";

/// A running master whose files have been edited.
fn with_mistake(edit: impl FnOnce(&mut Real) -> &mut Real) -> Real {
    let mut real = Real::new();
    real.configure("").write(GOOD).start();
    assert_eq!(real.get("/readyz").status, 200);
    edit(&mut real);
    real
}

/// Asserts that all programs report this file, line and column, what is wrong there, and what was
/// expected.
#[track_caller]
fn expect_all_report(real: &mut Real, mistake: &str) {
    let mistake = format!("error: {mistake}");
    // Before the reload,
    for command in ["check", "plan", "reload"] {
        let refused = masterctl(real, &[command]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(
            refused.stdout.starts_with(&format!("{mistake}\n")),
            "{refused:?}"
        );
    }
    assert_eq!(read_document(real).reloads, 0, "the master was left alone");
    // and after a reload without masterctl.
    let log = real.reload();
    assert!(log.contains(&format!("master: {mistake}\n")), "{log}");
    let document = read_document(real);
    let reload = document.last_reload.expect("a reload");
    assert_eq!((reload.succeeded, &reload.findings[0]), (false, &mistake));
    assert!(told(real, &["status"]).contains(&format!("  {mistake}\n")));
    assert!(told(real, &["top", "--once"]).contains("the last reload failed: error: /"));
    let ready = real.wait_for("/readyz", |ready| ready.status == 503);
    assert!(ready.body.contains(&format!("  {mistake}\n")), "{ready:?}");
    assert!(
        real.get("/metrics")
            .body
            .contains("\nmaster_last_reload_successful 0.0\n")
    );
    the_page_says(real, &mistake);
}

#[track_caller]
fn the_page_says(real: &Real, mistake: &str) {
    if !browser::is_installed() {
        let view = real.get("/view.json").body;
        let json = serde_json::to_string(mistake).expect("JSON");
        return assert!(view.contains(&json), "{view}");
    }
    let page = dom_with(&real.url("/"), &format!("<li>{mistake}</li>"));
    assert!(summary(&page).ends_with("The last reload failed."));
}

/// After the correction, no program reports it any more.
#[track_caller]
fn all_is_well_after(real: &mut Real, correction: impl FnOnce(&mut Real) -> &mut Real) {
    correction(real);
    assert!(told(real, &["reload"]).ends_with("reloaded\n"));
    let ready = real.wait_for("/readyz", |ready| ready.status == 200);
    assert_eq!(ready.body, "ready\n");
    assert!(told(real, &["top", "--once"]).contains("2 services, all well"));
}

#[test]
fn a_mistake_in_the_table_is_told_by_everybody_in_the_same_words() {
    let mut real = with_mistake(|real| real.write("# greetings\nhello unix n - - - many true\n"));
    let mistake = format!(
        "{}: line 2: column 20: field \"max_proc\": bad value: \"many\": expected a number of \
         processes, at most 2147483647, 0 for no limit, or \"-\"",
        real.table().display()
    );
    expect_all_report(&mut real, &mistake);
    all_is_well_after(&mut real, |real| real.write(GOOD));
}

#[test]
fn a_mistake_in_master_toml_keeps_nobody_from_being_told_of_it() {
    let mut real = with_mistake(|real| real.configure("default_proces_limit = 5\n"));
    let mistake = format!(
        "{}: line 4: column 1: unknown key \"default_proces_limit\": did you mean \
         \"default_process_limit\"?",
        real.path().join("master.toml").display()
    );
    expect_all_report(&mut real, &mistake);
    all_is_well_after(&mut real, |real| real.configure(""));
}

#[test]
fn where_the_files_are_named_from_does_not_matter() {
    let real = with_mistake(|real| real.write("hello unix n - - - many true\n"));
    let named = masterctl(&real, &["check"]);
    assert!(named.stdout.contains("line 1: column 20: "), "{named:?}");
    let program = real.masterctl(&[]).get_program().to_owned();
    let mut relative = Command::new(program);
    relative.current_dir(real.path());
    let relative = run(relative.args(["-c", "services.cf", "check"]), SOON);
    assert_eq!(relative.stdout, named.stdout);
}
