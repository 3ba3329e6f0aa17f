//! Many readers of the status socket while clients are served: nobody is lost, nobody waits for a
//! reader, and the master's memory stays bounded.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use master::status::{Document, SOCKET};
use testkit::client::Client;
use testkit::instance::SOON;
use testkit::poll::{until, within};
use testkit::standalone::Standalone;
use testkit::test;

use super::stage::{greeter, read_document};

const CROWD: usize = 200;
/// Services that make the document larger than what a socket takes at once.
const SERVICES: usize = 600;
/// Clients who are served meanwhile.
const CLIENTS: usize = 300;
/// The crowd has been served by then, a few at a time.
const LONG: Duration = Duration::from_secs(60);
/// So many documents may take memory at the same time: those that slow readers hold, and one that
/// is being made.
const DOCUMENTS: u64 = 7;
/// What else may come and go meanwhile, in KiB.
const MARGIN: u64 = 1024;

/// Comes and does not read.
fn never_read(path: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    Some(stream)
}

/// Comes again and again, and reads all there is.
fn hammer(path: &Path, end: &AtomicBool, read: &AtomicUsize) {
    while !end.load(Relaxed) {
        let mut text = Vec::new();
        let stream = never_read(path);
        if stream.is_some_and(|mut stream| stream.read_to_end(&mut text).is_ok()) {
            read.fetch_add(usize::from(text.ends_with(b"}")), Relaxed);
        }
    }
}

/// Sets the sign at the end, also when that is a test's failure.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// In KiB, as it is sent.
fn size(document: &Document) -> u64 {
    serde_json::to_vec(document).expect("JSON").len() as u64 / 1024
}

fn standalone(services: usize) -> Standalone {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let mut table = format!("hello unix n - - - 5 {}\n", greeter(&standalone));
    for n in 0..services {
        writeln!(table, "service-{n} unix n - - - 5 true").expect("a string takes all");
    }
    standalone.write_table(&table).start();
    standalone
}

#[test]
fn readers_that_never_read_and_readers_that_hammer_cost_no_client() {
    let mut standalone = standalone(SERVICES);
    let path: PathBuf = standalone.queue().join(SOCKET);
    let size = serde_json::to_vec(&read_document(&standalone))
        .expect("JSON")
        .len() as u64
        / 1024;
    let master = standalone.process();
    let before = master.own_memory();
    let mut most = before;
    let (end, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _ends = Ends(&end);
        for _ in 0..CROWD {
            scope.spawn(|| {
                // Who finds no room even to wait comes again.
                while !end.load(Relaxed) {
                    let _silent = never_read(&path);
                    within(SOON, || end.load(Relaxed));
                }
            });
            scope.spawn(|| hammer(&path, &end, &read));
        }
        let hello = standalone.queue().join("public/hello");
        let begun = Instant::now();
        let mut served = 0;
        // Until the crowd is really there.
        while served < CLIENTS || read.load(Relaxed) < CROWD {
            assert_eq!(Client::connect(&hello.to_string_lossy()).line(), "hello");
            served += 1;
            most = most.max(master.own_memory());
            assert!(begun.elapsed() < LONG, "{} have read", read.load(Relaxed));
        }
        println!("{served} clients in {:?}", begun.elapsed());
    });
    println!("read {} times", read.load(Relaxed));
    let limit = before + DOCUMENTS * size + MARGIN;
    assert!(
        most < limit,
        "{before} KiB, then {most} KiB; a document has {size} KiB"
    );
    // They are gone, and so are their documents; the next one is served.
    until(SOON, "the memory to be given back", || {
        master.own_memory() < before + MARGIN
    });
    assert_eq!(read_document(&standalone).services.len(), SERVICES + 1);
}

#[test]
fn a_large_document_leaves_no_memory_behind() {
    let mut standalone = standalone(2 * SERVICES);
    let master = standalone.process();
    let before = master.own_memory();
    let size = size(&read_document(&standalone));
    until(SOON, "the memory to be given back", || {
        master.own_memory() < before + size / 2
    });
}
