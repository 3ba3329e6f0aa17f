//! A program in a file system that takes the read request and does not answer. No signal ends a
//! process that waits for the answer. The file system is a thread of the test that speaks the
//! kernel's protocol, fuse(4): a directory with one file.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::libc;

use crate::exec::Hang;

/// Larger than any request except for writes.
const REQUEST: usize = 64 * 1024;

const ROOT: u64 = 1;
const PROGRAM: u64 = 2;
const NAME: &[u8] = b"program\0";

/// How long the kernel may cache the answers, in seconds.
const VALID: u64 = 3600;

pub struct Mount {
    directory: PathBuf,
    program: PathBuf,
    device: File,
    shared: Arc<Mutex<Shared>>,
    server: Option<JoinHandle<()>>,
}

/// State that the server and the test share.
struct Shared {
    text: Vec<u8>,
    /// Whether read requests are answered.
    answers: bool,
    /// Read requests that were taken and not answered.
    taken: VecDeque<Request>,
}

impl Mount {
    /// Mounts a file system with a program with this text.
    pub fn new(directory: &Path, text: &str) -> Self {
        std::fs::create_dir(directory).expect("a directory");
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("/dev/fuse");
        let options = format!(
            "fd={},rootmode=40755,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let [at, options] = [directory.as_os_str().as_bytes(), options.as_bytes()]
            .map(|text| CString::new(text).expect("no zero byte"));
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        // SAFETY: all arguments are strings that outlive the call.
        let mounted = unsafe {
            libc::mount(
                c"freeze".as_ptr(),
                at.as_ptr(),
                c"fuse".as_ptr(),
                flags,
                options.as_ptr().cast(),
            )
        };
        assert_eq!(mounted, 0, "mount: {}", io::Error::last_os_error());
        let shared = Arc::new(Mutex::new(Shared {
            text: text.as_bytes().to_vec(),
            answers: false,
            taken: VecDeque::new(),
        }));
        let (reader, its) = (device.try_clone().expect("a descriptor"), shared.clone());
        let server = thread::spawn(move || serve(reader, &its));
        Self {
            directory: directory.to_owned(),
            program: directory.join("program"),
            device,
            shared,
            server: Some(server),
        }
    }

    /// Answers the requests that were taken, and all later ones.
    pub fn answer(&mut self) {
        let mut shared = self.shared.lock().expect("no panic in the server");
        shared.answers = true;
        while let Some(request) = shared.taken.pop_front() {
            // The process may have ended.
            let _ = reply(&self.device, &request, Ok(shared.read(&request)));
        }
    }
}

impl Hang for Mount {
    fn program(&self) -> &Path {
        &self.program
    }

    fn holds(&self) -> bool {
        let shared = self.shared.lock().expect("no panic in the server");
        !shared.taken.is_empty()
    }

    fn release(&mut self) {
        self.answer();
    }

    fn outlives_signals(&self) -> bool {
        true
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = CString::new(self.directory.as_os_str().as_bytes()).expect("no zero byte");
        // All requests fail, also those that were taken; the server's device is closed.
        // SAFETY: the path is a string that outlives the call.
        unsafe { libc::umount2(at.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Shared {
    /// The data for a read request.
    fn read(&self, request: &Request) -> Vec<u8> {
        let offset = request.number_at::<8>(8) as usize;
        let size = request.number_at::<4>(16) as usize;
        let begin = offset.min(self.text.len());
        let end = offset.saturating_add(size).min(self.text.len());
        self.text[begin..end].to_vec()
    }
}

/// `struct fuse_in_header` and the arguments.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    const HEADER: usize = 40;

    fn opcode(&self) -> u64 {
        number(&self.bytes[4..8])
    }

    fn id(&self) -> &[u8] {
        &self.bytes[8..16]
    }

    fn node(&self) -> u64 {
        number(&self.bytes[16..24])
    }

    fn arguments(&self) -> &[u8] {
        &self.bytes[Self::HEADER..]
    }

    /// A number of `SIZE` bytes in the arguments.
    fn number_at<const SIZE: usize>(&self, at: usize) -> u64 {
        number(&self.arguments()[at..at + SIZE])
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(all)
}

/// Answers requests until the file system is gone.
fn serve(mut device: File, shared: &Mutex<Shared>) {
    let mut buffer = vec![0; REQUEST];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            // The request was cancelled before it was taken.
            Err(why) if why.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let request = Request {
            bytes: buffer[..length].to_vec(),
        };
        let mut shared = shared.lock().expect("no panic in the test");
        if let Some((request, answer)) = answer(request, &mut shared) {
            let _ = reply(&device, &request, answer);
        }
    }
}

/// The opcodes of linux/fuse.h.
mod opcode {
    pub const LOOKUP: u64 = 1;
    pub const FORGET: u64 = 2;
    pub const GETATTR: u64 = 3;
    pub const OPEN: u64 = 14;
    pub const READ: u64 = 15;
    pub const RELEASE: u64 = 18;
    pub const FLUSH: u64 = 25;
    pub const INIT: u64 = 26;
    pub const OPENDIR: u64 = 27;
    pub const READDIR: u64 = 28;
    pub const RELEASEDIR: u64 = 29;
    pub const INTERRUPT: u64 = 36;
    pub const BATCH_FORGET: u64 = 42;
}

type Answer = Result<Vec<u8>, Errno>;

/// The answer to a request; `None` if it is not answered now.
fn answer(request: Request, shared: &mut Shared) -> Option<(Request, Answer)> {
    let size = shared.text.len() as u64;
    let answer = match request.opcode() {
        opcode::INIT => Ok(init()),
        opcode::LOOKUP if request.arguments() == NAME => Ok(entry(size)),
        opcode::LOOKUP => Err(Errno::ENOENT),
        opcode::GETATTR => Ok([words64(&[VALID, 0]), attributes(request.node(), size)].concat()),
        opcode::OPEN | opcode::OPENDIR => Ok(vec![0; 16]),
        opcode::READ if !shared.answers => {
            shared.taken.push_back(request);
            return None;
        }
        opcode::READ => Ok(shared.read(&request)),
        opcode::READDIR | opcode::RELEASE | opcode::RELEASEDIR | opcode::FLUSH => Ok(Vec::new()),
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return None,
        _ => Err(Errno::ENOSYS),
    };
    Some((request, answer))
}

/// Writes `struct fuse_out_header` and the body in one call.
fn reply(mut device: &File, request: &Request, answer: Answer) -> io::Result<()> {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(why) => (-(why as i32), Vec::new()),
    };
    let mut message = ((16 + body.len()) as u32).to_le_bytes().to_vec();
    message.extend(error.to_le_bytes());
    message.extend(request.id());
    message.extend(body);
    device.write_all(&message)
}

/// `struct fuse_init_out` of version 7.31: writes of 4 KiB, synchronous reads.
fn init() -> Vec<u8> {
    let mut body = words32(&[7, 31, 0, 0]); // no readahead, no flags
    body.extend(words32(&[0, 4096])); // no limit in the background, the size of a write
    body.resize(64, 0);
    body
}

/// `struct fuse_entry_out` of the program.
fn entry(size: u64) -> Vec<u8> {
    let mut body = words64(&[PROGRAM, 0, VALID, VALID, 0]);
    body.extend(attributes(PROGRAM, size));
    body
}

/// `struct fuse_attr`.
fn attributes(node: u64, size: u64) -> Vec<u8> {
    let mode = match node {
        ROOT => libc::S_IFDIR | 0o755,
        _ => libc::S_IFREG | 0o755,
    };
    let size = if node == ROOT { 0 } else { size };
    let mut body = words64(&[node, size, 1, 0, 0, 0]);
    body.extend(words32(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]));
    body
}

fn words32(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words64(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
