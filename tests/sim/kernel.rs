//! The simulated kernel: a clock, processes, listeners, status channels. It knows the true state,
//! independent of what the master was told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use master::config::Service;
use master::policy::{Event, ExitStatus, Pid, Progress, ServiceId, Signal, Time};
use master::protocol::StatusReport;

use crate::lines;
use crate::template::{News, Template};

const FIRST_PID: Pid = 100;
/// Maximum number of processes during faults; a service without a limit would start more and more.
const PROCESSES_MAX: usize = 12;
/// Maximum number of clients in a listener's queue.
const BACKLOG: u32 = 4;
/// Number of reports that can be repeated.
const HISTORY: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its exec hangs.
    Hanging,
    Starting,
    Idle,
    Busy,
    Dead(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    Code(i32),
    Signal(i32),
}

/// A child of the master, alive or not reaped yet.
#[derive(Debug)]
pub struct Process {
    pub pid: Pid,
    pub place: ServiceId,
    pub generation: u32,
    pub phase: Phase,
    /// Whether the master has the other end of its status channel.
    pub heard: bool,
    /// Whether the master was told that its exec hangs.
    pub hang_reported: bool,
    /// Whether it ignores the status channel and signals.
    pub defiant: bool,
    pub signal: Option<Signal>,
}

/// A record on a status channel.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub writer: Pid,
    pub message: Message,
}

#[derive(Clone, Copy, Debug)]
pub enum Message {
    Report(StatusReport),
    /// Data that is not a report.
    Garbage,
    /// File descriptors; the master closes the channel when it receives them.
    Descriptors,
}

impl Record {
    fn event(self, service: ServiceId) -> Event {
        match self.message {
            Message::Report(report) => self.written(service, Ok(report)),
            Message::Garbage => self.written(service, Err(11)),
            Message::Descriptors => Event::SentDescriptors { pid: self.writer },
        }
    }

    fn written(self, service: ServiceId, report: Result<StatusReport, usize>) -> Event {
        Event::Report {
            service,
            writer: self.writer,
            report,
        }
    }
}

/// A service's listener, and its children's status channels. They are read in the order in which
/// they were written, which is one of the orders that a real system may choose.
#[derive(Debug)]
pub struct Port {
    pub service: Arc<Service>,
    pub watched: bool,
    /// Whether the master watches, but the kernel has refused it.
    pub refused: bool,
    /// Clients that have not been accepted.
    pub waiting: u32,
    pub records: VecDeque<Record>,
    /// What forks its children, if it is preloaded.
    pub template: Option<Template>,
}

impl Port {
    /// Adds a client; false if the queue is full.
    pub fn connect(&mut self) -> bool {
        let room = self.waiting < BACKLOG;
        self.waiting += u32::from(room);
        room
    }
}

#[derive(Debug, Default)]
pub struct Kernel {
    pub now: Time,
    pub processes: Vec<Process>,
    ports: Vec<Option<Port>>,
    history: VecDeque<(ServiceId, Record)>,
    /// The pids of processes whose end the master has not seen.
    pub vanished: Vec<Pid>,
    pub spawn_fails: bool,
    pub watch_fails: bool,
    /// Whether it does not tell how many clients wait.
    pub does_not_count: bool,
    /// Whether the faults are over.
    pub calm: bool,
}

impl Kernel {
    pub fn at(now: Time) -> Self {
        Self {
            now,
            ..Self::default()
        }
    }

    // The master's actions.

    /// Opens a service's listener, or renames it. Returns whether a watched listener was replaced,
    /// so that it is not watched any more.
    pub fn open(&mut self, place: ServiceId, service: Arc<Service>) -> bool {
        let at = place.index();
        if self.ports.len() <= at {
            self.ports.resize_with(at + 1, || None);
        }
        match &mut self.ports[at] {
            Some(port) => {
                let moved = port.service.endpoint != service.endpoint;
                port.service = service;
                moved && std::mem::take(&mut port.watched)
            }
            port => {
                *port = Some(Port {
                    service,
                    watched: false,
                    refused: false,
                    waiting: 0,
                    records: VecDeque::new(),
                    template: None,
                });
                false
            }
        }
    }

    /// After a reload, a service has a template, another one or none: one that has loaded, unless it has
    /// other listeners. Returns the child that a template was asked for that is gone.
    pub fn change_template(&mut self, place: ServiceId, moved: bool) -> Option<u32> {
        let port = self.port_mut(place)?;
        match &mut port.template {
            slot if !port.service.pool().preload => slot.take()?.take_request(),
            Some(template) => {
                template.replace(!moved);
                None
            }
            slot => {
                *slot = Some(Template::missing());
                None
            }
        }
    }

    pub fn template(&mut self, place: ServiceId) -> Option<&mut Template> {
        self.port_mut(place)?.template.as_mut()
    }

    /// The services that have one.
    pub fn preloaded(&self) -> Vec<ServiceId> {
        let ports = self.ports().filter(|(_, port)| port.template.is_some());
        ports.map(|(place, _)| place).collect()
    }

    pub fn template_deadline(&self) -> Option<Time> {
        let templates = self.ports().filter_map(|(_, port)| port.template.as_ref());
        templates.filter_map(Template::deadline).min()
    }

    fn templates(&mut self) -> impl Iterator<Item = &mut Template> {
        self.ports
            .iter_mut()
            .flatten()
            .filter_map(|port| port.template.as_mut())
    }

    /// Lets all templates take a step; false if none had one.
    pub fn live_templates(&mut self) -> bool {
        self.templates()
            .fold(false, |any, template| template.live() | any)
    }

    pub fn recover_templates(&mut self) {
        self.templates().for_each(Template::recover);
    }

    /// The next news of a service's template.
    pub fn template_news(&mut self, place: ServiceId) -> Option<News> {
        let now = self.now;
        self.template(place)?.next_news(now)
    }

    /// Closes a service's listener and status channels. Waiting clients are refused.
    pub fn close(&mut self, place: ServiceId) -> bool {
        let port = self.ports.get_mut(place.index());
        port.is_some_and(|port| port.take().is_some())
    }

    pub fn port(&self, place: ServiceId) -> Option<&Port> {
        self.ports.get(place.index())?.as_ref()
    }

    pub fn port_mut(&mut self, place: ServiceId) -> Option<&mut Port> {
        self.ports.get_mut(place.index())?.as_mut()
    }

    pub fn ports(&self) -> impl Iterator<Item = (ServiceId, &Port)> {
        let places = self.ports.iter().enumerate();
        places.filter_map(|(at, port)| Some((ServiceId::from_index(at), port.as_ref()?)))
    }

    /// Watches the listener. `None` if the kernel refuses.
    pub fn watch(&mut self, place: ServiceId) -> Option<bool> {
        let refused = std::mem::take(&mut self.watch_fails) && !self.calm;
        let port = self.port_mut(place).filter(|port| !port.watched)?;
        port.watched = true;
        port.refused = refused;
        Some(!refused)
    }

    pub fn unwatch(&mut self, place: ServiceId) -> bool {
        let port = self.port_mut(place);
        port.is_some_and(|port| {
            port.refused = false;
            std::mem::take(&mut port.watched)
        })
    }

    /// Starts a process; `None` if the system refuses. Pids for which the master has pending
    /// actions are not reused, because the runtime uses pidfds.
    pub fn spawn(&mut self, place: ServiceId, generation: u32, used: &[Pid]) -> Option<Pid> {
        let fails = std::mem::take(&mut self.spawn_fails);
        let full = self.processes.len() >= PROCESSES_MAX;
        if (fails || full) && !self.calm {
            return None;
        }
        let pid = self.free_pid(used);
        self.vanished.retain(|vanished| *vanished != pid);
        self.port(place)?;
        self.processes.push(Process {
            pid,
            place,
            generation,
            phase: Phase::Starting,
            heard: true,
            hang_reported: false,
            defiant: false,
            signal: None,
        });
        Some(pid)
    }

    /// Whether the limit of the service allows another child.
    pub fn has_room(&self, place: ServiceId) -> bool {
        let children = self.processes.iter().filter(|p| p.place == place).count();
        let max = self.port(place).map(|port| port.service.max as usize);
        max.is_some_and(|max| max == 0 || children < max)
    }

    /// The lowest free pid: no kernel reuses pids sooner.
    fn free_pid(&self, used: &[Pid]) -> Pid {
        let used = |pid: &Pid| self.process(*pid).is_some() || used.contains(pid);
        let mut pids = FIRST_PID..;
        pids.find(|pid| !used(pid)).expect("pids without end")
    }

    fn process(&self, pid: Pid) -> Option<&Process> {
        self.processes.iter().find(|process| process.pid == pid)
    }

    fn process_mut(&mut self, pid: Pid) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.pid == pid)
    }

    /// Whether the process exists, alive or not reaped, as far as the master can know.
    pub fn is_known(&self, pid: Pid) -> bool {
        self.process(pid).is_some() || self.vanished.contains(&pid)
    }

    /// Signals a process; an ended one is ignored.
    pub fn signal(&mut self, pid: Pid, signal: Signal) {
        if let Some(process) = self.process_mut(pid) {
            process.signal = Some(signal);
        }
    }

    /// Closes the status channel of a process after the master has read everything.
    pub fn close_channel(&mut self, pid: Pid) {
        if let Some(process) = self.process_mut(pid) {
            process.heard = false;
        }
    }

    // The master's input.

    pub fn connections(&self) -> Vec<ServiceId> {
        let ready = |port: &Port| port.watched && !port.refused && port.waiting > 0;
        let ports = self.ports().filter(|(_, port)| ready(port));
        ports.map(|(place, _)| place).collect()
    }

    /// The next report in the children's status channels.
    pub fn next_heard(&mut self) -> Option<Event> {
        let mut ports = self.ports.iter_mut().enumerate();
        let (at, record) =
            ports.find_map(|(at, port)| Some((at, port.as_mut()?.records.pop_front()?)))?;
        Some(self.hear(ServiceId::from_index(at), record))
    }

    /// The next report in one process's status channel.
    pub fn next_heard_of(&mut self, pid: Pid) -> Option<Event> {
        let place = self.process(pid)?.place;
        let records = &mut self.port_mut(place)?.records;
        let at = records.iter().position(|record| record.writer == pid)?;
        let record = records.remove(at)?;
        Some(self.hear(place, record))
    }

    fn hear(&mut self, place: ServiceId, record: Record) -> Event {
        if let Message::Descriptors = record.message {
            self.close_channel(record.writer);
            if let Some(port) = self.port_mut(place) {
                port.records.retain(|other| other.writer != record.writer);
            }
        }
        record.event(place)
    }

    /// The next process whose exec has taken longer than a second.
    pub fn next_hanging(&mut self) -> Option<Pid> {
        let hangs = |p: &&mut Process| p.phase == Phase::Hanging && !p.hang_reported;
        let process = self.processes.iter_mut().find(hangs)?;
        process.hang_reported = true;
        Some(process.pid)
    }

    /// Whether there is nothing to read and no process to reap.
    pub fn is_quiet(&self) -> bool {
        let dead = |p: &Process| matches!(p.phase, Phase::Dead(_));
        let hangs = |p: &Process| p.phase == Phase::Hanging && !p.hang_reported;
        let silent = |port: &Port| port.records.is_empty();
        let quiet = |p: &Process| !dead(p) && !hangs(p);
        let templates = |port: &Port| port.template.as_ref().is_none_or(Template::is_quiet);
        self.ports()
            .all(|(_, port)| silent(port) && templates(port))
            && self.processes.iter().all(quiet)
    }

    /// The next end, and whether that child took a client, as the runtime finds out.
    pub fn reap(&mut self) -> Option<(Pid, ExitStatus, Progress)> {
        if self.calm && !self.vanished.is_empty() {
            let pid = self.vanished.pop()?;
            return Some((pid, ExitStatus::Code(0), Progress::Unknown));
        }
        let mut processes = self.processes.iter().enumerate();
        let (at, end) = processes.find_map(|(at, process)| match process.phase {
            Phase::Dead(end) => Some((at, end)),
            _ => None,
        })?;
        let status = match end {
            End::Code(code) => ExitStatus::Code(code),
            End::Signal(signal) => ExitStatus::Signal(signal),
        };
        let Process { pid, place, .. } = self.processes.remove(at);
        let progress = match self.port(place) {
            _ if self.does_not_count => Progress::Unknown,
            Some(port) if port.waiting > 0 => Progress::None,
            _ => Progress::Made,
        };
        Some((pid, status, progress))
    }

    // Changes without the master.

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn client(&mut self, endpoint: u8) -> bool {
        self.port_at(endpoint).is_some_and(Port::connect)
    }

    fn port_at(&mut self, endpoint: u8) -> Option<&mut Port> {
        let identity = lines::identity(endpoint);
        let mut ports = self.ports.iter_mut().flatten();
        ports.find(|port| port.service.identity() == identity)
    }

    /// The service of the nth template.
    pub fn nth_template(&self, nth: u8) -> Option<ServiceId> {
        let all = self.preloaded();
        let nth = usize::from(nth).checked_rem(all.len())?;
        Some(all[nth])
    }

    /// The index of the nth living process.
    pub fn living(&self, nth: u8) -> Option<usize> {
        let processes = self.processes.iter().enumerate();
        let living: Vec<usize> = processes
            .filter(|(_, p)| !matches!(p.phase, Phase::Dead(_)))
            .map(|(at, _)| at)
            .collect();
        let nth = usize::from(nth).checked_rem(living.len())?;
        Some(living[nth])
    }

    /// Lets the process take its next step; false if there is none.
    pub fn live(&mut self, at: usize) -> bool {
        let Process {
            phase,
            signal,
            defiant,
            ..
        } = self.processes[at];
        let obeys = self.calm || !defiant;
        let end = match (phase, signal) {
            (Phase::Dead(_), _) => return false,
            (Phase::Hanging, Some(Signal::Kill)) if !obeys => return false,
            (_, Some(Signal::Kill)) => End::Signal(9),
            (Phase::Hanging, _) if !self.calm => return false,
            (_, Some(Signal::Term | Signal::Int)) if obeys => End::Signal(15),
            (Phase::Idle | Phase::Busy, _) if obeys && self.told(at) => End::Code(0),
            _ => return self.serve(at),
        };
        self.end(at, end);
        true
    }

    fn serve(&mut self, at: usize) -> bool {
        let before = self.processes[at].phase;
        let next = match before {
            // During calm, the exec continues.
            Phase::Hanging => Phase::Starting,
            Phase::Starting | Phase::Busy => Phase::Idle,
            Phase::Idle if self.accept(at) => Phase::Busy,
            Phase::Idle | Phase::Dead(_) => return false,
        };
        self.processes[at].phase = next;
        if !matches!(before, Phase::Hanging | Phase::Starting) {
            self.report(at, i32::from(next == Phase::Idle));
        }
        true
    }

    /// Accepts a client; false if none waits.
    fn accept(&mut self, at: usize) -> bool {
        let port = self.port_mut(self.processes[at].place);
        let waiting = port.map(|port| &mut port.waiting).filter(|n| **n > 0);
        waiting.map(|waiting| *waiting -= 1).is_some()
    }

    pub fn vanish(&mut self, at: usize) {
        self.vanished.push(self.processes.remove(at).pid);
    }

    pub fn end(&mut self, at: usize, end: End) {
        self.processes[at].phase = Phase::Dead(end);
    }

    /// Whether the status channel tells the process to leave.
    pub fn told(&self, at: usize) -> bool {
        !self.processes[at].heard
    }

    /// A correct report of the process.
    pub fn own_report(&self, at: usize, available: i32) -> StatusReport {
        let Process {
            pid, generation, ..
        } = self.processes[at];
        StatusReport {
            pid,
            generation,
            available,
        }
    }

    fn report(&mut self, at: usize, available: i32) {
        self.write(at, Message::Report(self.own_report(at, available)));
    }

    /// Writes to the process's status channel; false if the other end is closed.
    pub fn write(&mut self, at: usize, message: Message) -> bool {
        let Process {
            pid: writer, place, ..
        } = self.processes[at];
        let record = Record { writer, message };
        let heard = !self.told(at) && self.push(place, record);
        if heard {
            self.history.truncate(HISTORY - 1);
            self.history.push_front((place, record));
        }
        heard
    }

    /// The process writes a report to another service's status channel.
    pub fn stray(&mut self, at: usize, endpoint: u8) -> bool {
        let busy = self.processes[at].phase == Phase::Busy;
        let report = self.own_report(at, i32::from(busy));
        let record = Record {
            writer: report.pid,
            message: Message::Report(report),
        };
        let port = self.port_at(endpoint);
        port.map(|port| port.records.push_back(record)).is_some()
    }

    fn push(&mut self, place: ServiceId, record: Record) -> bool {
        let port = self.port_mut(place);
        port.map(|port| port.records.push_back(record)).is_some()
    }

    pub fn echo(&mut self, nth: u8) -> bool {
        let Some(nth) = usize::from(nth).checked_rem(self.history.len()) else {
            return false;
        };
        let (place, record) = self.history[nth];
        self.push(place, record)
    }

    pub fn lose(&mut self, nth: u8) -> bool {
        let mut ports: Vec<_> = self.ports.iter_mut().flatten().collect();
        let nth = usize::from(nth).checked_rem(ports.len());
        nth.is_some_and(|nth| ports[nth].records.pop_front().is_some())
    }
}
