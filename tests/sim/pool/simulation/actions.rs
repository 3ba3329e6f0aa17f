//! The execution of the policy's actions.

use master::policy::{Action, Event, OrderFailure, Pid, Signal};
use master::protocol::pool::Order;

use super::process::Process;
use super::{BROKEN_PIPE, Broken, NO_ROOM, PROCESSES_MAX, Simulation};

impl Simulation {
    /// Queues the table's actions, and updates what the master knows.
    pub(super) fn take_actions(&mut self) -> Result<(), Broken> {
        for action in std::mem::take(&mut self.actions) {
            self.coverage.action(&action);
            match action {
                Action::Spawn { .. } if self.paused => {
                    return Err("a child for a service that is paused".into());
                }
                Action::Spawn { .. } if !self.has_room() => {
                    return Err("a child beyond the limit".into());
                }
                Action::Signal { pid, signal } => {
                    self.process(pid)?.no_longer_counts();
                    self.ended += u32::from(signal == Signal::Int);
                }
                Action::Order { pid, order } => self.check_order(pid, order)?,
                _ => {}
            }
            self.queue.push_back(action);
        }
        Ok(())
    }

    /// Executes all queued actions, or as many as `late` allows.
    pub(super) fn carry_out(&mut self) -> Result<(), Broken> {
        while self.late.is_none() && !self.queue.is_empty() {
            self.carry_out_next()?;
        }
        Ok(())
    }

    pub(super) fn carry_out_next(&mut self) -> Result<(), Broken> {
        match self.queue.pop_front() {
            Some(action) => self.act(&action),
            None => Ok(()),
        }
    }

    /// Executes one action. It has no effect on a child that has ended in the meantime.
    fn act(&mut self, action: &Action) -> Result<(), Broken> {
        match *action {
            Action::Watch(_) => self.watch(),
            Action::Unwatch(_) => {
                self.refused = false;
                if std::mem::take(&mut self.watched) {
                    Ok(())
                } else {
                    Err("unwatched, and not watched before".into())
                }
            }
            Action::Spawn { generation, .. } => self.spawn(generation),
            Action::Signal { pid, signal } => {
                if let Ok(process) = self.process(pid) {
                    process.signal = Some(signal);
                }
                Ok(())
            }
            Action::Order { pid, order } => self.order(pid, order),
            Action::Measure { pid } => {
                let bytes = if std::mem::take(&mut self.faults.memory) {
                    1 << 30
                } else {
                    0
                };
                if self.process(pid).is_err() {
                    return Ok(());
                }
                self.take_in(Event::Measured { pid, bytes })
            }
            Action::CloseChannel { pid } => {
                while let Some(event) = self.next_word(pid) {
                    self.take_in(event)?;
                }
                if let Ok(process) = self.process(pid) {
                    process.held = false;
                    process.words.clear();
                }
                Ok(())
            }
            Action::Log(ref record) => {
                if record.to_string().is_empty() {
                    Err("a record without words".into())
                } else {
                    Ok(())
                }
            }
            ref other => Err(format!("not requested: {other:?}")),
        }
    }

    fn process(&mut self, pid: Pid) -> Result<&mut Process, Broken> {
        let process = self.processes.iter_mut().find(|p| p.pid == pid);
        process.ok_or_else(|| format!("there is no process {pid}"))
    }

    fn watch(&mut self) -> Result<(), Broken> {
        if std::mem::replace(&mut self.watched, true) {
            return Err("watched twice".into());
        }
        self.refused = std::mem::take(&mut self.faults.watch);
        if self.refused {
            let (service, error) = (self.place, NO_ROOM);
            self.take_in(Event::WatchFailed { service, error })?;
        }
        Ok(())
    }

    /// Whether the limit allows another child.
    fn has_room(&self) -> bool {
        let max = self.in_force.max as usize;
        max == 0 || self.processes.len() < max
    }

    fn spawn(&mut self, generation: u32) -> Result<(), Broken> {
        if let Some(template) = &mut self.template {
            template.request(generation)?;
            self.order_fork();
            return Ok(());
        }
        let event = self.started(generation)?;
        self.take_in(event)
    }

    /// The system starts a child, or has no room for it.
    pub(super) fn started(&mut self, generation: u32) -> Result<Event, Broken> {
        let fails = std::mem::take(&mut self.faults.spawn);
        if fails || self.processes.len() >= PROCESSES_MAX {
            return Ok(self.failed());
        }
        // The runtime's pending actions must not reach a new process with the same pid.
        let pending = |pid| self.queue.iter().any(|action| pid_of(action) == Some(pid));
        let used = |&pid: &Pid| self.processes.iter().any(|p| p.pid == pid) || pending(pid);
        let pid = (100..).find(|pid| !used(pid)).ok_or("pids without end")?;
        self.processes.push(Process::new(pid));
        self.started += 1;
        Ok(Event::Spawned {
            service: self.place,
            generation,
            pid,
        })
    }

    pub(super) fn failed(&self) -> Event {
        Event::SpawnFailed {
            service: self.place,
            error: NO_ROOM,
        }
    }

    /// Checks that the child may get this order.
    fn check_order(&mut self, pid: Pid, order: Order) -> Result<(), Broken> {
        let (now, paused) = (self.now, self.paused);
        if order != Order::Accept {
            return self.process(pid).map(|_| ());
        }
        if self.processes.iter().any(|p| p.idle && p.pid < pid) {
            return Err(format!(
                "{pid} is ordered, and not the idle child with the lowest pid"
            ));
        }
        let process = self.process(pid)?;
        let what = if paused {
            "while the service is paused"
        } else if !process.held {
            "whose channel is closed"
        } else if process.ordered_at.is_some() {
            "which has not answered the one before"
        } else if !process.idle {
            "which is not idle"
        } else {
            process.idle = false;
            process.ordered_at = Some(now);
            return Ok(());
        };
        Err(format!("an order for {pid}, {what}"))
    }

    fn order(&mut self, pid: Pid, order: Order) -> Result<(), Broken> {
        let fails = match order {
            Order::Accept => std::mem::take(&mut self.faults.child),
            Order::Ping => std::mem::take(&mut self.faults.ping),
        };
        let waits = std::mem::take(&mut self.faults.write);
        let Ok(process) = self.process(pid) else {
            return Ok(());
        };
        let failure = if !process.held {
            OrderFailure::NoChannel
        } else if fails || !process.open {
            OrderFailure::System(BROKEN_PIPE)
        } else {
            if waits || !process.unwritten.is_empty() {
                process.unwritten.push_back(order)
            } else {
                process.orders.push_back(order)
            }
            return Ok(());
        };
        self.take_in(Event::OrderFailed { pid, failure })
    }
}

/// The process that an action is for.
fn pid_of(action: &Action) -> Option<Pid> {
    match *action {
        Action::Signal { pid, .. }
        | Action::Order { pid, .. }
        | Action::CloseChannel { pid }
        | Action::Measure { pid } => Some(pid),
        _ => None,
    }
}
