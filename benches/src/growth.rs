//! What happens when very much happens at once: a service with many children is removed, or many
//! children end in the same moment. The master must need the same time for each of them, however
//! many there are, and another service's clients must not notice.

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

/// What it was like.
pub struct Report {
    pub what: &'static str,
    pub children: usize,
    /// The master's processor time for each child, in millionths of a second.
    pub cpu: f64,
    /// The longest stretch for which it was busy and served nobody, in thousandths, if it tells.
    pub busy: Option<f64>,
    /// The longest that a client of the other service waited meanwhile. The children's ends keep
    /// all processors busy, so that this is not the master's doing alone.
    pub longest: f64,
    /// The same while nothing happened.
    pub calm: f64,
    /// The longest that a client of another program waited, which starts a child for each too.
    pub beside: f64,
}

/// Both things with few and with many children.
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

/// Has a service get so many children, lets something happen that ends them all, and watches: once
/// the master alone, and once another service's clients too.
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

/// Does some work while a thread of this program serves one client after the other, each with a
/// child: what these have to wait is what the machine has them wait.
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
        // One more has it look.
        UnixStream::connect(socket)?;
        let served = server.join();
        served.map_err(|_| anyhow!("the server panicked"))??;
        load
    })
}

/// What the master, if it is the one with the clock that notes them, was busy for at the longest.
fn longest_stretch(system: &System) -> Result<Option<f64>> {
    let text = fs::read_to_string(system.path("times"))?;
    let stretches = text.lines().map(|line| Ok(line.parse::<u64>()?));
    let longest = stretches.collect::<Result<Vec<_>>>()?.into_iter().max();
    Ok(longest.map(|nanos| millis(Duration::from_nanos(nanos))))
}

/// The reports as a table in Markdown, ours beside Postfix's.
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
