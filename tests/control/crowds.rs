//! Many readers of the status socket while clients are served: no client is lost or delayed, and
//! the master's memory stays bounded.

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
use testkit::operator::read_document;
use testkit::poll::{until, within};
use testkit::run::run;
use testkit::standalone::Standalone;
use testkit::test;

const CROWD: usize = 200;
/// With this number of services, the document is larger than a socket's buffer.
const SERVICES: usize = 600;
/// The number of clients during the test.
const CLIENTS: usize = 300;
/// Maximum time to serve the whole crowd, a few readers at a time.
const LONG: Duration = Duration::from_secs(60);
/// Maximum number of documents in memory at the same time: those of slow readers, and a new one.
const DOCUMENTS: u64 = 7;
/// Other memory that may be used, in KiB.
const MARGIN: u64 = 1024;

/// Connects and does not read.
fn never_read(path: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(path).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    Some(stream)
}

/// Connects again and again, and reads everything.
fn hammer(path: &Path, end: &AtomicBool, read: &AtomicUsize) {
    while !end.load(Relaxed) {
        let mut text = Vec::new();
        let stream = never_read(path);
        if stream.is_some_and(|mut stream| stream.read_to_end(&mut text).is_ok()) {
            read.fetch_add(usize::from(text.ends_with(b"}")), Relaxed);
        }
    }
}

/// Sets the flag on drop, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The size in KiB, as sent.
fn size(document: &Document) -> u64 {
    serde_json::to_vec(document).expect("JSON").len() as u64 / 1024
}

fn standalone(services: usize) -> Standalone {
    let mut standalone = Standalone::of_a_user();
    standalone.unwatched("the services are counted");
    let mut table = format!("hello unix n - - - 5 {}\n", standalone.greeter());
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
                // The queue of connections is full: try again.
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
        // Until all readers have connected.
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
    // All readers have disconnected, so their documents are freed; the next reader is served.
    until(SOON, "the memory to be given back", || {
        master.own_memory() < before + MARGIN
    });
    assert_eq!(read_document(&standalone).services.len(), SERVICES + 1);
}

/// Maximum time of masterctl on a slow machine; in the queue of the others it would wait for longer.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn the_masters_own_user_does_not_wait_for_other_readers() {
    let standalone = standalone(SERVICES);
    let path: PathBuf = standalone.queue().join(SOCKET);
    let ask = || run(&mut standalone.masterctl(&["status"]), SOON).expect_success();
    // The first command may have to be built.
    ask();
    let end = AtomicBool::new(false);
    let connected = AtomicUsize::new(0);
    thread::scope(|scope| {
        let _ends = Ends(&end);
        for _ in 0..CROWD {
            scope.spawn(|| {
                // The queue of connections is always full.
                while !end.load(Relaxed) {
                    let silent = never_read(&path);
                    connected.fetch_add(1, Relaxed);
                    within(AT_ONCE, || end.load(Relaxed));
                    drop(silent);
                }
            });
        }
        until(SOON, "the queue to be full", || {
            (connected.load(Relaxed) > 80).then_some(())
        });
        for _ in 0..3 {
            let begun = Instant::now();
            let status = ask();
            assert!(status.stdout.starts_with("master "), "{status:?}");
            assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
        }
    });
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
