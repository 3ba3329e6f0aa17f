//! Many readers of the status socket while clients are served: nobody is lost, nobody waits for a
//! reader, and the master's memory stays bounded.

use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use master::status::SOCKET;

use super::common::client::Client;
use super::common::instance::SOON;
use super::common::poll::until;
use super::common::ports::Port;
use super::common::world::World;
use super::stage::{greeter, read_document};

const CROWD: usize = 200;
/// Services that make the document larger than what a socket takes at once.
const SERVICES: usize = 600;
/// Clients who are served meanwhile.
const CLIENTS: usize = 300;
/// What the master may need for the documents that it holds, in KiB.
const MEMORY: u64 = 16 * 1024;

/// Comes and does not read.
fn never_read(path: &Path) -> Option<UnixStream> {
    let stream = UnixStream::connect(path).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .ok()?;
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

fn world(port: &Port) -> World {
    let mut world = World::new();
    let mut table = format!("127.0.0.1:{port} inet n - - - 5 {}\n", greeter(&world));
    for n in 0..SERVICES {
        writeln!(table, "service-{n} unix n - - - 5 true").expect("a string takes all");
    }
    world.write_table(&table).start();
    world
}

#[test]
fn readers_that_never_read_and_readers_that_hammer_cost_no_client() {
    let port = Port::reserve();
    let mut world = world(&port);
    let path: PathBuf = world.queue().join(SOCKET);
    read_document(&world);
    let before = world.process().memory();
    let (end, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CROWD {
            scope.spawn(|| {
                // Who finds no room even to wait comes again.
                while !end.load(Relaxed) {
                    let _silent = never_read(&path);
                    until(SOON, "the end", || end.load(Relaxed));
                }
            });
            scope.spawn(|| hammer(&path, &end, &read));
        }
        let address = format!("127.0.0.1:{port}");
        let begun = Instant::now();
        for _ in 0..CLIENTS {
            assert_eq!(Client::connect(&address).line(), "hello");
        }
        println!("{CLIENTS} clients in {:?}", begun.elapsed());
        until(SOON, "somebody to have read it all", || {
            read.load(Relaxed) > 0
        });
        end.store(true, Relaxed);
    });
    println!("read {} times", read.load(Relaxed));
    let after = world.process().memory();
    assert!(after < before + MEMORY, "{before} KiB, then {after} KiB");
    // They are gone, and the next one is served.
    assert_eq!(read_document(&world).services.len(), SERVICES + 1);
}
