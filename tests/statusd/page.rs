//! The page of a real statusd, in a browser.

use master::status::Upgrade;
use testkit::documents::{at_the_limit, calm, crowd, failed_reload, hostile, stressed, throttled};
use testkit::{needs_root, test};

use crate::browser::needs_chromium;
use crate::browser::{dom, expect, summary};
use crate::site::Site;
use crate::stage::Stage;

#[test]
fn a_calm_master_is_all_well() {
    needs_root("a mail system");
    needs_chromium();
    let stage = Stage::new(&calm());
    let page = dom(&stage.url("/"));
    assert_eq!(summary(&page), "7 services, all well.");
    expect(&page, "<title>master: all well</title>");
    expect(&page, "3 busy, 2 idle; limit 100");
    expect(&page, "1 busy, 3 idle; no limit");
    expect(&page, "aria-label=\"between 3 and 3 busy\"");
    expect(&page, "3 d 4 h");
    assert!(
        !page.contains("Process</th>"),
        "children are shown on request"
    );
}

#[test]
fn the_version_is_shown_with_the_upgrades_that_have_led_to_it() {
    needs_root("a mail system");
    needs_chromium();
    assert!(!dom(&Stage::new(&calm()).url("/")).contains("Upgrades"));
    let mut document = calm();
    document.upgrades = 3;
    document.last_upgrade = Some(Upgrade {
        time: document.time - 60.0,
        from: "0.0.9".to_owned(),
    });
    let page = dom(&Stage::new(&document).url("/"));
    expect(&page, "0.1.0");
    expect(&page, "Upgrades");
    expect(&page, "3, the last ");
    expect(&page, " from 0.0.9");
}

#[test]
fn a_service_that_a_link_names_is_shown_with_its_children() {
    needs_root("a mail system");
    needs_chromium();
    let stage = Stage::new(&calm());
    let page = dom(&stage.url("/#smtp/inet"));
    expect(&page, "aria-label=\"Children of smtp/inet\"");
    expect(&page, "<td>10000</td><td>busy</td>");
    expect(&page, "<td>10004</td><td>idle</td>");
    assert_eq!(page.matches("aria-expanded=\"true\"").count(), 1);
}

#[test]
fn a_service_at_its_limit_is_marked_in_words() {
    needs_root("a mail system");
    needs_chromium();
    let page = dom(&Stage::new(&at_the_limit()).url("/"));
    assert_eq!(summary(&page), "7 services. 1 at the limit: smtp/inet.");
    expect(&page, "at its limit");
    expect(&page, "near its limit");
    expect(&page, "100 busy, 0 idle; limit 100");
    expect(&page, "at the limit for 100 % of the time");
    expect(&page, "data-label=\"waiting\">37<");
}

#[test]
fn stress_and_throttling_are_marked_in_words() {
    needs_root("a mail system");
    needs_chromium();
    let page = dom(&Stage::new(&stressed()).url("/"));
    expect(summary(&page), "1 in stress mode: smtp/inet.");
    expect(&page, "stress, 15 min left");
    let page = dom(&Stage::new(&throttled()).url("/"));
    assert_eq!(summary(&page), "7 services. 1 throttled: policyd/unix.");
    expect(&page, "throttled, 43 s left");
}

#[test]
fn what_is_learned_about_a_services_command_is_among_its_details() {
    needs_root("a mail system");
    needs_chromium();
    let details = |service: &str| dom(&Stage::new(&throttled()).url(&format!("/#{service}")));
    let learned = details("policyd/unix");
    expect(&learned, "<dt>Next throttled for</dt><dd>2 min</dd>");
    let share = "<dt>Ended abnormally</dt><dd>the child of 3 of the last 20 clients</dd>";
    expect(&learned, share);
    let usual = details("local/unix");
    expect(&usual, "<dt>Most busy</dt>");
    assert!(!usual.contains("Next throttled") && !usual.contains("abnormally"));
}

#[test]
fn what_is_wrong_is_explained_where_the_children_are() {
    needs_root("a mail system");
    needs_chromium();
    let page = dom(&Stage::new(&stressed()).url("/#smtp/inet"));
    expect(
        &page,
        "<strong>at its limit</strong>: All processes that maxproc allows",
    );
    expect(
        &page,
        "<strong>stress, 15 min left</strong>: The limit was reached",
    );
    let page = dom(&Stage::new(&throttled()).url("/#policyd/unix"));
    expect(
        &page,
        "43 s left</strong>: Children have failed; the log says why.",
    );
    assert!(!page.contains("undefined"), "{page}");
}

#[test]
fn a_failed_reload_is_shown_with_the_line_that_is_wrong() {
    needs_root("a mail system");
    needs_chromium();
    let page = dom(&Stage::new(&failed_reload()).url("/"));
    assert_eq!(summary(&page), "7 services. The last reload failed.");
    expect(&page, "failed: nothing was changed");
    expect(&page, "master.cf: line 138: column 1: bad port");
}

#[test]
fn a_master_that_does_not_answer_is_said_to_on_the_page() {
    needs_root("a mail system");
    needs_chromium();
    let stage = Stage::new(&calm());
    stage.get("/healthz");
    stage.master.vanish();
    stage.wait_for("/readyz", |ready| ready.status == 503);
    let page = dom(&stage.url("/"));
    expect(&page, "The master does not answer: ");
    expect(&page, "No such file or directory");
    expect(&page, " s old.");
    assert_eq!(summary(&page), "This is how it was:");
    expect(&page, "<title>master: no answer</title>");
}

#[test]
fn what_the_master_says_is_text_and_not_markup() {
    needs_root("a mail system");
    needs_chromium();
    let page = dom(&Stage::new(&hostile()).url("/"));
    expect(&page, "&lt;img src=x onerror=");
    assert!(!page.contains("<img"), "{page}");
    assert!(!page.contains("<title>pwned"), "{page}");
}

#[test]
fn five_hundred_services_are_shown() {
    needs_root("a mail system");
    needs_chromium();
    let page = dom(&Stage::new(&crowd(500)).url("/"));
    assert_eq!(summary(&page), "500 services, all well.");
    assert_eq!(page.matches("role=\"rowheader\"").count(), 500);
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_may_have_nothing() {
    needs_root("a mail system");
    let stage = Stage::new(&calm());
    for path in ["/", "/page.css", "/page.js"] {
        let answer = stage.get(path);
        assert_eq!(answer.status, 200, "{path}");
        let policy =
            "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'";
        assert!(answer.head.contains(policy), "{answer:?}");
        // SVG's namespace looks like an address.
        let body = answer.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!body.contains("//www") && !body.contains("http"), "{path}");
        assert!(!body.contains("innerHTML"), "{path}");
    }
}
