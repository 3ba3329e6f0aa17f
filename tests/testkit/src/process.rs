//! The kernel's facts about running processes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::canary;

/// A process, by its ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(pub i32);

/// Real, effective, saved and file system ids.
pub type Ids = [u32; 4];

/// The signals that are blocked, ignored and caught, as masks: bit 0 is signal 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
}

impl Process {
    /// All running processes, without zombies.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> = fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Self)
            .filter(|process| process.runs())
            .collect();
        all.sort();
        all
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn read(self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap_or_default()
    }

    fn text(self, name: &str) -> String {
        String::from_utf8_lossy(&self.read(name)).into_owned()
    }

    fn strings(self, name: &str) -> Vec<String> {
        let text = self.text(name);
        match text.strip_suffix('\0') {
            Some(text) => text.split('\0').map(str::to_owned).collect(),
            None if text.is_empty() => Vec::new(),
            None => text.split('\0').map(str::to_owned).collect(),
        }
    }

    /// A field of `/proc/PID/stat`, numbered as in proc(5), from 3 up.
    fn stat(self, number: usize) -> Option<String> {
        let text = self.text("stat");
        // The second field is the name in parentheses, which may contain any characters.
        let (_, rest) = text.rsplit_once(')')?;
        rest.split_whitespace().nth(number - 3).map(str::to_owned)
    }

    fn stat_number(self, number: usize) -> i32 {
        self.stat(number).and_then(|n| n.parse().ok()).unwrap_or(-1)
    }

    fn status(self, name: &str) -> Option<String> {
        self.text("status").lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key == name).then(|| value.trim().to_owned())
        })
    }

    /// The text of `/proc/PID/cgroup`.
    pub fn cgroup(self) -> String {
        self.text("cgroup")
    }

    /// Whether it exists and has not ended.
    pub fn runs(self) -> bool {
        !matches!(self.stat(3).as_deref(), None | Some("Z" | "X"))
    }

    /// Whether it sleeps.
    pub fn sleeps(self) -> bool {
        self.stat(3).as_deref() == Some("S")
    }

    /// Whether a signal or a debugger has stopped it.
    pub fn is_stopped(self) -> bool {
        matches!(self.stat(3).as_deref(), Some("T" | "t"))
    }

    /// Whether strace(1) or a debugger traces it.
    pub fn is_traced(self) -> bool {
        self.status("TracerPid").is_some_and(|pid| pid != "0")
    }

    /// Whether it waits for events (or, rarely, has just been woken up).
    pub fn is_idle(self) -> bool {
        waits_for_events(&self.text("wchan"))
    }

    /// How long it has run or was ready to run: on a busy machine, a process that is always busy
    /// does not always run.
    pub fn busy(self) -> Duration {
        let text = self.text("schedstat");
        let numbers = text.split_whitespace().take(2);
        let nanoseconds = numbers.map(|n| n.parse::<u64>().expect("nanoseconds"));
        Duration::from_nanos(nanoseconds.sum())
    }

    /// How long it was ready to run but did not run, because others ran.
    pub fn waited_to_run(self) -> Duration {
        ready_time(&self.text("schedstat"))
    }

    /// Its resident memory, in KiB.
    pub fn memory(self) -> u64 {
        self.kilobytes("VmRSS")
    }

    /// Its anonymous memory, in KiB.
    pub fn own_memory(self) -> u64 {
        self.kilobytes("RssAnon")
    }

    fn kilobytes(self, name: &str) -> u64 {
        let text = self.status(name).unwrap_or_default();
        let number = text.split_whitespace().next();
        number.and_then(|n| n.parse().ok()).unwrap_or_default()
    }

    /// Whether it waits for data: in poll(2), select(2), or reading a socket.
    pub fn waits(self) -> bool {
        let place = self.text("wchan");
        ["poll", "select", "unix_stream", "wait_for_more_packets"]
            .iter()
            .any(|call| place.contains(call))
    }

    pub fn parent(self) -> i32 {
        self.stat_number(4)
    }

    pub fn group(self) -> i32 {
        self.stat_number(5)
    }

    pub fn session(self) -> i32 {
        self.stat_number(6)
    }

    /// Its start time, in clock ticks since boot: it distinguishes it from a later process with its
    /// ID.
    pub fn started(self) -> i32 {
        self.stat_number(22)
    }

    /// The other processes that run the same file: copies of a master.
    pub fn copies(self) -> Vec<Self> {
        let executable = self.executable();
        let mut all = Self::all();
        all.retain(|process| *process != self && process.executable() == executable);
        all
    }

    pub fn children(self) -> Vec<Self> {
        Self::all()
            .into_iter()
            .filter(|process| process.parent() == self.0)
            .collect()
    }

    pub fn children_and_zombies(self) -> Vec<Self> {
        let children = self.text(&format!("task/{}/children", self.0));
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        children.map(Self).collect()
    }

    /// Whether one of its children, including zombies, has a program with this name.
    pub fn has_child_with_name(self, name: &str) -> bool {
        let mut children = self.children_and_zombies().into_iter();
        children.any(|child| child.text("comm").trim_end() == name)
    }

    pub fn signal(self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.0), signal);
    }

    /// Has it run before all processes of ordinary priority, so that a busy machine does not
    /// disturb what is counted. Needs root.
    pub fn prefer(self) {
        let set = Command::new("chrt")
            .args(["--rr", "--pid", "10", &self.0.to_string()])
            .status();
        assert!(set.expect("chrt").success());
    }

    pub fn cmdline(self) -> Vec<String> {
        self.strings("cmdline")
    }

    pub fn environ(self) -> BTreeMap<String, String> {
        self.strings("environ")
            .into_iter()
            .map(|text| match text.split_once('=') {
                Some((name, value)) => (name.to_owned(), value.to_owned()),
                None => (text, String::new()),
            })
            .collect()
    }

    pub fn cwd(self) -> PathBuf {
        fs::read_link(self.file("cwd")).unwrap_or_default()
    }

    pub fn root(self) -> PathBuf {
        fs::read_link(self.file("root")).unwrap_or_default()
    }

    pub fn executable(self) -> PathBuf {
        fs::read_link(self.file("exe")).unwrap_or_default()
    }

    fn ids(self, name: &str) -> Ids {
        let text = self.status(name).unwrap_or_default();
        let mut ids = [u32::MAX; 4];
        for (id, word) in ids.iter_mut().zip(text.split_whitespace()) {
            *id = word.parse().expect("an id");
        }
        ids
    }

    pub fn uids(self) -> Ids {
        self.ids("Uid")
    }

    pub fn gids(self) -> Ids {
        self.ids("Gid")
    }

    pub fn groups(self) -> String {
        self.status("Groups").unwrap_or_default()
    }

    pub fn umask(self) -> String {
        self.status("Umask").unwrap_or_default()
    }

    pub fn signals(self) -> Signals {
        let mask = |name| {
            let text = self.status(name).unwrap_or_default();
            u64::from_str_radix(&text, 16).unwrap_or_default()
        };
        Signals {
            blocked: mask("SigBlk"),
            ignored: mask("SigIgn"),
            caught: mask("SigCgt"),
        }
    }

    /// Whether a blocked signal is pending.
    pub fn has_pending(self, signal: Signal) -> bool {
        let text = self.status("ShdPnd").unwrap_or_default();
        let mask = u64::from_str_radix(&text, 16).unwrap_or_default();
        mask & (1 << (signal as i32 - 1)) != 0
    }

    /// The content of a file for each of its threads.
    fn of_threads(self, name: &str) -> Vec<String> {
        let threads = fs::read_dir(self.file("task")).expect("a process");
        let ids = threads.filter_map(|thread| Some(thread.ok()?.file_name()));
        let text =
            |id: std::ffi::OsString| self.text(&format!("task/{}/{name}", id.to_string_lossy()));
        ids.map(text).collect()
    }

    /// Whether all of its threads are idle.
    pub fn rests(self) -> bool {
        let places = self.of_threads("wchan");
        places.iter().all(|place| waits_for_events(place))
    }

    /// The number of its threads' voluntary context switches.
    pub fn voluntary_switches(self) -> u64 {
        let count = |status: &String| -> Option<u64> {
            let (_, rest) = status.split_once("\nvoluntary_ctxt_switches:")?;
            rest.lines().next()?.trim().parse().ok()
        };
        self.of_threads("status").iter().filter_map(count).sum()
    }

    pub fn limits(self) -> Vec<String> {
        let text = self.text("limits");
        text.lines().map(str::to_owned).collect()
    }

    /// The soft limit of this name in proc(5).
    #[track_caller]
    pub fn limit(self, name: &str) -> u64 {
        let limits = self.limits();
        let values = limits.iter().find_map(|line| line.strip_prefix(name));
        let soft = values.and_then(|values| values.split_whitespace().next());
        soft.and_then(|n| n.parse().ok()).expect("a limit")
    }

    pub fn descriptors(self) -> BTreeMap<i32, Descriptor> {
        let sockets = Sockets::of(self);
        let all = self.descriptor_targets().into_iter();
        all.filter_map(|(number, target)| {
            let info = self.text(&format!("fdinfo/{number}"));
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            let kind = Kind::of(&target, &sockets);
            Some((
                number,
                Descriptor {
                    kind,
                    flags: u32::from_str_radix(flags.trim(), 8).ok()?,
                    target,
                },
            ))
        })
        .collect()
    }

    /// The targets of its descriptors, without the list of all sockets: that one has a line for each
    /// connection of the last minute, and takes seconds to read after many.
    pub fn descriptor_targets(self) -> BTreeMap<i32, String> {
        let Ok(entries) = fs::read_dir(self.file("fd")) else {
            return BTreeMap::new();
        };
        entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.parse().ok()?;
                let target = fs::read_link(entry.path()).ok()?;
                Some((number, target.to_string_lossy().into_owned()))
            })
            .collect()
    }
}

/// The same for the calling thread.
pub fn thread_waited_to_run() -> Duration {
    ready_time(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

/// The second number in a `schedstat` file; see the kernel's documentation.
fn ready_time(schedstat: &str) -> Duration {
    let nanoseconds = schedstat.split_whitespace().nth(1);
    Duration::from_nanos(nanoseconds.and_then(|n| n.parse().ok()).unwrap_or_default())
}

/// Whether a thread's kernel function waits for events of many descriptors.
fn waits_for_events(place: &str) -> bool {
    place.contains("ep_poll") || place.contains("epoll")
}

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub kind: Kind,
    /// Access mode, status flags and close-on-exec, as in open(2).
    pub flags: u32,
    /// The target of the link in `/proc`, with inode numbers of sockets and pipes.
    pub target: String,
}

impl Descriptor {
    pub fn non_blocking(&self) -> bool {
        self.flags & nix::libc::O_NONBLOCK as u32 != 0
    }

    pub fn close_on_exec(&self) -> bool {
        self.flags & nix::libc::O_CLOEXEC as u32 != 0
    }
}

/// The kind of a descriptor, without details that vary between runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File(String),
    Pipe,
    Socket(Socket),
    /// A socket that is in none of the kernel's lists, for instance an unbound one.
    UnknownSocket,
    /// `anon_inode:`, such as an epoll instance.
    Anonymous(String),
}

impl Kind {
    fn of(target: &str, sockets: &Sockets) -> Self {
        if target.starts_with("pipe:") {
            Self::Pipe
        } else if let Some(inode) = socket_inode(target) {
            match sockets.0.get(&inode) {
                Some(socket) => Self::Socket(socket.clone()),
                None => Self::UnknownSocket,
            }
        } else if let Some(name) = target.strip_prefix("anon_inode:") {
            Self::Anonymous(name.to_owned())
        } else {
            Self::File(target.to_owned())
        }
    }

    /// Whether it is a listener for a service's clients, not one of the master's own sockets or the
    /// canary's.
    pub fn is_listener(&self) -> bool {
        let other = |socket: &Socket| {
            socket.local.starts_with("pid/master.")
                || socket.local == format!("private/{}", canary::NAME)
        };
        matches!(self, Self::Socket(socket) if socket.listening && !other(socket))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Pipe => f.write_str("pipe"),
            Self::UnknownSocket => f.write_str("socket"),
            Self::Anonymous(name) => f.write_str(name),
            Self::Socket(socket) => {
                let Socket {
                    family,
                    kind,
                    local,
                    listening,
                    ..
                } = socket;
                let listening = if *listening { " listening" } else { "" };
                write!(f, "{family} {kind}{listening} {local:?}")
            }
        }
    }
}

/// The inode number in `socket:[N]`.
pub fn socket_inode(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// A socket in the kernel's lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// `tcp`, `tcp6`, `udp`, `udp6` or `unix`.
    pub family: &'static str,
    /// `stream`, `dgram` or `seqpacket`.
    pub kind: &'static str,
    pub listening: bool,
    /// `a.b.c.d:port`, the hexadecimal form of an IPv6 address and port, or a path.
    pub local: String,
}

/// The sockets of a process's network namespace, by inode number.
struct Sockets(BTreeMap<u64, Socket>);

impl Sockets {
    fn of(process: Process) -> Self {
        let mut sockets = BTreeMap::new();
        for (family, kind) in [
            ("tcp", "stream"),
            ("tcp6", "stream"),
            ("udp", "dgram"),
            ("udp6", "dgram"),
        ] {
            for line in process.text(&format!("net/{family}")).lines().skip(1) {
                // Past connections (TIME_WAIT) can be many, and no process has them.
                if line.split_whitespace().nth(3) == Some("06") {
                    continue;
                }
                let words: Vec<&str> = line.split_whitespace().collect();
                let inode = words[9].parse().expect("an inode number");
                let socket = Socket {
                    family,
                    kind,
                    listening: kind == "stream" && words[3] == "0A",
                    local: inet_address(words[1]),
                };
                sockets.insert(inode, socket);
            }
        }
        for line in process.text("net/unix").lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let inode = words[6].parse().expect("an inode number");
            let flags = u32::from_str_radix(words[3], 16).expect("flags");
            let socket = Socket {
                family: "unix",
                kind: match words[4] {
                    "0001" => "stream",
                    "0002" => "dgram",
                    "0005" => "seqpacket",
                    _ => "unknown",
                },
                listening: flags & 0x1_0000 != 0,
                local: words.get(7).copied().unwrap_or_default().to_owned(),
            };
            sockets.insert(inode, socket);
        }
        Self(sockets)
    }
}

/// `0100007F:0019` is `127.0.0.1:25`: the address is in the machine's byte order.
fn inet_address(text: &str) -> String {
    let (address, port) = text.split_once(':').expect("an address and a port");
    let port = u16::from_str_radix(port, 16).expect("a port");
    match u32::from_str_radix(address, 16) {
        Ok(number) if address.len() == 8 => {
            let [a, b, c, d] = number.to_ne_bytes();
            format!("{a}.{b}.{c}.{d}:{port}")
        }
        _ => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_kernels_form() {
        assert_eq!(inet_address("0100007F:0019"), "127.0.0.1:25");
    }

    #[test]
    fn a_listener_is_known_by_its_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let ours = Process(Pid::this().as_raw()).descriptors();
        let descriptor = &ours[&std::os::fd::AsRawFd::as_raw_fd(&listener)];
        assert!(descriptor.kind.is_listener());
        assert!(socket_inode(&descriptor.target).is_some());
        let Kind::Socket(socket) = &descriptor.kind else {
            panic!("{:?}", descriptor.kind);
        };
        assert_eq!(socket.local, address);
    }
}
