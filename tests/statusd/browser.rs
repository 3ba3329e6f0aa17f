//! Chromium, as one who looks at the page.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::run::{Finished, run};

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

/// Leaves the test unless there is a browser.
#[macro_export]
macro_rules! needs_chromium {
    () => {
        if !$crate::browser::is_installed() {
            return $crate::common::skip("chromium is not installed");
        }
    };
}

/// The page as it is after its first seconds, as text with all elements.
#[track_caller]
pub fn dom(url: &str) -> String {
    chromium(DESK, &["--dump-dom", url]).stdout
}

/// Draws the page into a PNG file.
#[track_caller]
pub fn draw(url: &str, look: Look, file: &Path) {
    let screenshot = format!("--screenshot={}", file.display());
    chromium(look, &[&screenshot, url]);
    assert!(file.exists(), "{}", file.display());
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
