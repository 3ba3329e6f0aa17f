//! Measures events with many children: a service with many children is removed, or many children
//! end at once. The master's time for each child must not depend on their number, and the clients
//! of another service must not be delayed.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use nix::sys::signal::Signal;

use crate::effort::Effort;
use crate::load;
use crate::spawn::spawn;
use crate::system::{CROWD, OTHER_ALONE, Running, System};
use crate::{micros, millis};

/// The result of one event.
pub struct Report {
    pub what: &'static str,
    pub children: usize,
    /// The master's processor time for each child, in microseconds.
    pub cpu: f64,
    /// The longest time for which the master was busy without serving, in milliseconds, if it
    /// records that.
    pub busy: Option<f64>,
    /// The longest wait of the other service's clients during the event, in milliseconds. It is not
    /// only the master's time, because the ending children use all processors.
    pub longest: f64,
    /// The same without an event.
    pub calm: f64,
    /// The longest wait of a client of another program, which also starts a child for each client.
    pub beside: f64,
}

/// Both events, with few and with many children.
pub fn measure(master: &Path, effort: Effort) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for children in [effort.children / 50, effort.children / 5] {
        reports.push(removal(master, children)?);
    }
    for children in [effort.children / 10, effort.children] {
        reports.push(ends(master, children)?);
    }
    Ok(reports)
}

fn removal(master: &Path, children: usize) -> Result<Report> {
    let what = "children of a service that is removed";
    happening(master, what, children, |system, running, _| {
        system.configure(OTHER_ALONE)?;
        running.signal(Signal::SIGHUP)
    })
}

fn ends(master: &Path, children: usize) -> Result<Report> {
    let what = "children that end at once";
    happening(master, what, children, |_, _, clients| {
        clients.clear();
        Ok(())
    })
}

/// Starts `children` children of a service, lets `happen` end all of them, and measures: first the
/// master alone, then with clients of another service.
fn happening(
    master: &Path,
    what: &'static str,
    children: usize,
    happen: impl Fn(&System, &Running<'_>, &mut Vec<UnixStream>) -> Result<()>,
) -> Result<Report> {
    let system = System::new()?;
    let start = || {
        system.configure(CROWD)?;
        let running = system.start(master)?;
        let clients = load::hold(&system.socket("s0"), children)?;
        running.rest()?;
        anyhow::Ok((running, clients))
    };
    let (running, mut clients) = start()?;
    let before = running.process().cpu_with_helpers()?;
    happen(&system, &running, &mut clients)?;
    running.wait_for_few_children()?;
    running.rest()?;
    let cpu = micros(running.process().cpu_with_helpers()? - before);
    drop(running);

    let (running, mut clients) = start()?;
    let other = system.socket("other");
    let calm = load::while_visited(&other, || {
        thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    fs::write(system.path("times"), "")?;
    let busy = load::while_visited(&other, || {
        happen(&system, &running, &mut clients)?;
        running.wait_for_few_children()
    })?;
    let stretch = longest_stretch(&system)?;
    drop(running);

    let (running, mut clients) = start()?;
    let beside = while_others_are_served(&system.path("beside"), || {
        happen(&system, &running, &mut clients)?;
        running.wait_for_few_children()
    })?;
    Ok(Report {
        what,
        children,
        cpu: cpu / children as f64,
        busy: stretch,
        longest: millis(busy.longest_wait()),
        calm: millis(calm.longest_wait()),
        beside: millis(beside.longest_wait()),
    })
}

/// Runs `work` while a thread serves clients one after the other, each with a child. The wait of
/// these clients is caused by the machine's load alone.
fn while_others_are_served(socket: &Path, work: impl FnOnce() -> Result<()>) -> Result<load::Load> {
    let listener = UnixListener::bind(socket)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            loop {
                let (mut client, _) = listener.accept()?;
                if done.load(Ordering::Relaxed) {
                    return anyhow::Ok(());
                }
                spawn(1)?;
                client.write_all(b"x")?;
            }
        });
        let load = load::while_visited(socket, work);
        done.store(true, Ordering::Relaxed);
        // Another connection wakes the thread up, so that it sees the flag.
        UnixStream::connect(socket)?;
        let served = server.join();
        served.map_err(|_| anyhow!("the server panicked"))??;
        load
    })
}

/// The longest time for which the master was busy; `None` for a master without the clock.
fn longest_stretch(system: &System) -> Result<Option<f64>> {
    let text = fs::read_to_string(system.path("times"))?;
    let stretches = text.lines().map(|line| Ok(line.parse::<u64>()?));
    let longest = stretches.collect::<Result<Vec<_>>>()?.into_iter().max();
    Ok(longest.map(|nanos| millis(Duration::from_nanos(nanos))))
}

/// The results as a table in Markdown, ours beside Postfix's.
pub fn markdown(ours: &[Report], theirs: &[Report]) -> String {
    let mut text = String::from(
        "| what happens | children | CPU per child, us: ours | Postfix's | longest turn, ms: ours \
         | another service's first byte at most, ms: ours (calm) | Postfix's (calm) \
         | of a program beside ours | beside Postfix's |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (ours, theirs) in ours.iter().zip(theirs) {
        let busy = ours.busy.map_or_else(String::new, |ms| format!("{ms:.1}"));
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {busy} | {:.1} ({:.1}) | {:.1} ({:.1}) | {:.1} | {:.1} |",
            ours.what,
            ours.children,
            ours.cpu,
            theirs.cpu,
            ours.longest,
            ours.calm,
            theirs.longest,
            theirs.calm,
            ours.beside,
            theirs.beside
        );
    }
    text.push_str(
        "\nThe program beside the master also starts a child for each client, and has no part in \
         the children that end: its times show the load of the machine.\n",
    );
    text
}
