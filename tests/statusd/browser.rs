//! Chromium, as a user's browser.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::poll::within;
use testkit::run::{Finished, run};
use testkit::skip;

const CHROMIUM: &str = "/usr/bin/chromium";
/// Its start takes long on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The display settings for a page.
#[derive(Clone, Copy, Debug)]
pub struct Viewport {
    pub width: u32,
    pub height: u32,
    pub dark: bool,
}

pub const DESK: Viewport = Viewport {
    width: 1200,
    height: 760,
    dark: false,
};

pub fn is_installed() -> bool {
    Path::new(CHROMIUM).exists()
}

/// Skips the test if there is no browser.
pub fn needs_chromium() {
    if !is_installed() {
        skip("chromium is not installed");
    }
}

/// The page after its first seconds, as HTML text.
#[track_caller]
pub fn dom(url: &str) -> String {
    chromium(DESK, &["--dump-dom", url]).stdout
}

/// The page as HTML text, once it contains `what`: it follows the master with a delay of some
/// seconds.
#[track_caller]
pub fn dom_with(url: &str, what: &str) -> String {
    let mut page = String::new();
    within(TIMEOUT, || {
        page = dom(url);
        page.contains(what)
    });
    expect(&page, what);
    page
}

/// Asserts that the page contains `what`.
#[track_caller]
pub fn expect(page: &str, what: &str) {
    assert!(page.contains(what), "no {what:?} in\n{page}");
}

/// The text of the status line, for screen readers.
pub fn summary(page: &str) -> &str {
    let start = page.find("id=\"summary\"").expect("a status line");
    let text = &page[start..];
    let text = &text[text.find('>').expect("an end") + 1..];
    &text[..text.find('<').expect("an end")]
}

/// The directory for pictures, if the environment sets one.
fn album() -> Option<PathBuf> {
    std::env::var_os("MASTER_TEST_SCREENSHOTS").map(PathBuf::from)
}

/// Whether pictures are kept.
pub fn are_kept() -> bool {
    album().is_some()
}

/// Draws the page and returns the size of the image. It is stored in the directory in
/// `MASTER_TEST_SCREENSHOTS`, as NAME.png.
#[track_caller]
pub fn draw(url: &str, look: Viewport, name: &str) -> usize {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = album().unwrap_or(scratch.path().to_owned());
    std::fs::create_dir_all(&directory).expect("a directory");
    let file = directory.join(name).with_extension("png");
    let screenshot = format!("--screenshot={}", file.display());
    chromium(look, &[&screenshot, url]);
    let image = std::fs::read(&file).expect("an image");
    // Width and height are at fixed offsets in PNG.
    let number = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().expect("4 bytes"));
    let size = (number(16), number(20));
    assert_eq!(size, (look.width, look.height), "{name}");
    image.len()
}

#[track_caller]
fn chromium(look: Viewport, arguments: &[&str]) -> Finished {
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
        // The page's virtual clock runs fast while it waits for nothing.
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
    run(&mut command, TIMEOUT).expect_success()
}
