//! Chromium, as one who looks at the page.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::poll::within;
use testkit::run::{Finished, run};
use testkit::skip;

const CHROMIUM: &str = "/usr/bin/chromium";
/// It takes its time to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How somebody looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

pub const DESK: Look = Look {
    width: 1200,
    height: 760,
    dark: false,
};

pub fn is_installed() -> bool {
    Path::new(CHROMIUM).exists()
}

/// Ends the test unless there is a browser.
pub fn needs_chromium() {
    if !is_installed() {
        skip("chromium is not installed");
    }
}

/// The page as it is after its first seconds, as text with all elements.
#[track_caller]
pub fn dom(url: &str) -> String {
    chromium(DESK, &["--dump-dom", url]).stdout
}

/// The page as text, once it has this in it: it follows the master a few seconds later.
#[track_caller]
pub fn dom_with(url: &str, what: &str) -> String {
    let mut page = String::new();
    within(PATIENCE, || {
        page = dom(url);
        page.contains(what)
    });
    expect(&page, what);
    page
}

/// The page has this in it.
#[track_caller]
pub fn expect(page: &str, what: &str) {
    assert!(page.contains(what), "no {what:?} in\n{page}");
}

/// The text of the status line, which a screen reader reads out.
pub fn summary(page: &str) -> &str {
    let start = page.find("id=\"summary\"").expect("a status line");
    let text = &page[start..];
    let text = &text[text.find('>').expect("an end") + 1..];
    &text[..text.find('<').expect("an end")]
}

/// Where pictures are kept, if somebody wants them.
fn album() -> Option<PathBuf> {
    std::env::var_os("MASTER_TEST_SCREENSHOTS").map(PathBuf::from)
}

/// Whether somebody wants pictures.
pub fn are_kept() -> bool {
    album().is_some()
}

/// Draws the page, and returns the size of the image. It is kept where `MASTER_TEST_SCREENSHOTS`
/// says, under its name with `.png`.
#[track_caller]
pub fn draw(url: &str, look: Look, name: &str) -> usize {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = album().unwrap_or(scratch.path().to_owned());
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = directory.join(name).with_extension("png");
    let screenshot = format!("--screenshot={}", file.display());
    chromium(look, &[&screenshot, url]);
    let image = std::fs::read(&file).expect("an image");
    // Width and height are where the format has them.
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().expect("4 bytes"));
    let size = (number(16), number(20));
    assert_eq!(size, (look.width, look.height), "{name}");
    image.len()
}

#[track_caller]
fn chromium(look: Look, arguments: &[&str]) -> Finished {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(CHROMIUM);
    command
        .env("HOME", home.path())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--no-first-run", "--disable-dev-shm-usage"])
        // The page's own clock goes fast when it waits for nothing.
        .arg("--virtual-time-budget=3000")
        .arg(format!(
            "--user-data-dir={}",
            home.path().join("profile").display()
        ))
        .arg(format!("--window-size={},{}", look.width, look.height))
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!look.dark)
        ))
        .args(arguments);
    run(&mut command, PATIENCE).expect_success()
}
