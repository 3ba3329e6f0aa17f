//! Compares our stand-alone master with other programs that start a program for each connection.
//! All of them start the same static child, which echoes. Programs that are not installed are left
//! out.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::effort::Effort;
use crate::load;
use crate::millis;
use crate::process::Process;
use crate::spread::Spread;
use crate::system::CHILD;

/// A server for one address, with its own files.
struct Server {
    name: &'static str,
    program: PathBuf,
    /// Writes its configuration files and returns its arguments.
    setup: fn(&Setup) -> Result<Vec<String>>,
}

pub struct Setup {
    directory: TempDir,
    pub address: SocketAddr,
    /// The directory of the built programs.
    pub built: PathBuf,
}

impl Setup {
    pub fn new(built: &Path) -> Result<Self> {
        Ok(Self {
            directory: tempfile::tempdir()?,
            // The port is free for a moment until the server binds it; no other program takes it.
            address: TcpListener::bind("127.0.0.1:0")?.local_addr()?,
            built: built.to_owned(),
        })
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.directory.path().join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// A configuration with one line, which runs this command.
    fn table(&self, command: &str) -> Result<Vec<String>> {
        self.pool(100, command, "")
    }

    /// The same with another process limit, and with settings in `master.toml`.
    pub fn pool(&self, limit: usize, command: &str, settings: &str) -> Result<Vec<String>> {
        let address = self.address;
        let directory = |name| self.directory.path().join(name).display().to_string();
        let (queue, data) = (directory("queue"), directory("data"));
        let settings = format!(
            "queue_directory = \"{queue}\"\ndata_directory = \"{data}\"\n\
             [service.\"{address}/inet\"]\n{settings}"
        );
        self.write("master.toml", &settings)?;
        let line = format!("{address} inet n n n - {limit} {command}\n");
        Ok(vec!["-c".into(), self.write("master.cf", &line)?])
    }
}

fn servers(built: &Path) -> Vec<Server> {
    let server = |name, program: &str, setup: fn(&Setup) -> Result<Vec<String>>| Server {
        name,
        program: program.into(),
        setup,
    };
    let ours = built.join("master");
    let ours = ours.to_string_lossy();
    vec![
        server("master, a child for each", &ours, |setup| {
            setup.table(&format!("{CHILD} echo"))
        }),
        server("master, its own echo, warm", &ours, |setup| {
            setup.table(&setup.built.join("echo").display().to_string())
        }),
        server("socat", "/usr/bin/socat", |setup| {
            let (ip, port) = (setup.address.ip(), setup.address.port());
            let listen = format!("TCP-LISTEN:{port},bind={ip},reuseaddr,fork,backlog=100");
            Ok(vec![listen, format!("EXEC:{CHILD} cat")])
        }),
        server("xinetd", "/usr/sbin/xinetd", |setup| {
            let (ip, port) = (setup.address.ip(), setup.address.port());
            let service = format!(
                "service bench\n{{\ntype = UNLISTED\nsocket_type = stream\nprotocol = tcp\n\
                 bind = {ip}\nport = {port}\nuser = root\nwait = no\ninstances = UNLIMITED\n\
                 per_source = UNLIMITED\ncps = 1000000 1\nserver = {CHILD}\n\
                 server_args = cat\n}}\n"
            );
            let file = setup.write("xinetd.conf", &service)?;
            Ok(vec!["-dontfork".into(), "-f".into(), file])
        }),
        server("tcpserver", "/usr/bin/tcpserver", |setup| {
            let (ip, port) = (setup.address.ip(), setup.address.port());
            let arguments = format!("-HRl0 -c 100 {ip} {port} {CHILD} cat");
            Ok(arguments.split(' ').map(str::to_owned).collect())
        }),
    ]
}

/// Measures all servers alternately, in `rounds` rounds. Returns a table in Markdown.
pub fn measure(built: &Path, effort: Effort, rounds: usize) -> Result<String> {
    let servers = servers(built);
    let there = |server: &&Server| {
        let echo = !server.name.contains("its own") || built.join("echo").exists();
        echo && server.program.exists()
    };
    let servers: Vec<&Server> = servers.iter().filter(there).collect();
    let mut table = Table::new(servers.iter().map(|server| server.name));
    for _ in 0..rounds {
        for (at, server) in servers.iter().enumerate() {
            let measured = sample(server, built, effort);
            table.add(at, measured.with_context(|| server.name)?);
        }
    }
    Ok(table.markdown("server"))
}

/// Measurements of several programs: connections per second with one and with eight clients, and
/// the time to the first byte with one client, in milliseconds.
pub struct Table(Vec<(&'static str, [Vec<f64>; 3])>);

impl Table {
    pub fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self(names.map(|name| (name, Default::default())).collect())
    }

    pub fn add(&mut self, at: usize, measured: [f64; 3]) {
        for (samples, value) in self.0[at].1.iter_mut().zip(measured) {
            samples.push(value);
        }
    }

    pub fn markdown(&self, who: &str) -> String {
        let mut text = format!(
            "| {who} | connections/s, 1 at a time | 8 at a time | first byte, ms |\n\
             |---|---:|---:|---:|\n",
        );
        for (name, samples) in &self.0 {
            let [one, eight, wait] = samples.each_ref().map(|samples| Spread::of(samples));
            let _ = writeln!(
                text,
                "| {name} | {:.0} ({:.0}-{:.0}) | {:.0} ({:.0}-{:.0}) | {:.2} |",
                one.median, one.min, one.max, eight.median, eight.min, eight.max, wait.median
            );
        }
        text
    }
}

/// Connections per second with one and with eight clients, and the time to the first byte with one.
fn sample(server: &Server, built: &Path, effort: Effort) -> Result<[f64; 3]> {
    let setup = Setup::new(built)?;
    let arguments = (server.setup)(&setup)?;
    let _running = Stopped::start(Command::new(&server.program).args(arguments))?;
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(setup.address).is_err() {
        ensure!(Instant::now() < end, "no program listens");
        thread::sleep(Duration::from_millis(5));
    }
    let run = |clients| load::run_visits(effort.spawns, clients, || load::echo(setup.address));
    run(1)?;
    let (one, eight) = (run(1)?, run(8)?);
    Ok([one.rate(), eight.rate(), millis(one.median_wait())])
}

/// A process that is stopped on drop.
pub struct Stopped(Child);

impl Stopped {
    pub fn start(command: &mut Command) -> Result<Self> {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }

    pub fn process(&self) -> Process {
        Process(self.0.id() as i32)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        // Fails only if the process has already ended.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
