//! Starts children, and takes up our ends of what each of them was given for itself.

use std::io;
use std::os::fd::AsFd;

use super::Runtime;
use super::ports::{about, described, exec_failed};
use crate::log::{About, Severity, reason};
use crate::policy::{Event, Pid, ServiceId, Time};
use crate::sys::backchannel::Backchannel;
use crate::sys::output::OutputPipe;
use crate::sys::spawn::Spawned;

/// A child that was started, and our ends of what it was given for itself.
struct Started {
    spawned: Spawned,
    channel: Option<Backchannel>,
    output: Option<OutputPipe>,
}

impl Runtime {
    /// Starts a child, and tells the policy what came of it.
    pub(super) fn spawn(&mut self, now: Time, service: ServiceId, generation: u32, stress: bool) {
        if self.ports.status_is_shut(service) {
            // Nobody is available now; the busy ones leave, as they are told by the same sign.
            self.ports.drop_status(service, &self.poll);
        }
        let spawned = self.start_child(service, generation, stress);
        let event = match spawned {
            Ok(started) => {
                let Spawned { pid, exec_error } = started.spawned;
                if let Some(error) = exec_error {
                    self.exec_failed(service, pid, &error);
                }
                let event = Event::Spawned {
                    service,
                    generation,
                    pid,
                };
                self.table.step(now, event, &mut self.actions);
                self.read_from(service, pid, started.output);
                return self.listen_to(now, pid, started.channel);
            }
            Err(error) => Event::SpawnFailed {
                service,
                reason: reason(&error),
            },
        };
        self.table.step(now, event, &mut self.actions);
    }

    fn exec_failed(&mut self, id: ServiceId, pid: Pid, error: &io::Error) {
        if let Some(service) = self.ports.service(id) {
            let about = About {
                child: Some(pid),
                ..about(service)
            };
            let text = exec_failed(service, error, self.setup.location.table());
            self.log.write_about(Severity::Warning, about, text);
        }
    }

    /// A new child, and our ends of what it was given for itself.
    fn start_child(&mut self, id: ServiceId, generation: u32, stress: bool) -> io::Result<Started> {
        let Self {
            ports,
            poll,
            spawner,
            environment,
            ..
        } = self;
        let (ordered, captured) = (ports.is_ordered(id), ports.is_captured(id));
        let (ours, theirs) = match ordered {
            true => Backchannel::new().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
            false => (None, None),
        };
        let (output, printed) = match captured {
            true => OutputPipe::new().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
            false => (None, None),
        };
        let own = theirs.as_ref().map(AsFd::as_fd);
        let printed = printed.as_ref().map(AsFd::as_fd);
        let run = self.setup.run;
        let (program, descriptors) = ports.ready_to_spawn(id, poll, run, stress, own, printed)?;
        let spawned = spawner.spawn(program, environment, generation, descriptors)?;
        Ok(Started {
            spawned,
            channel: ours,
            output,
        })
    }

    fn read_from(&mut self, id: ServiceId, pid: Pid, output: Option<OutputPipe>) {
        let Some((output, service)) = output.zip(self.ports.service(id)) else {
            return;
        };
        let of = (id, service.clone());
        if let Err(error) = self.outputs.add(pid, of, output, &self.poll) {
            let (name, reason) = (described(service), reason(&error));
            let about = About {
                child: Some(pid),
                ..about(service)
            };
            let text =
                format!("{name}: what process {pid} prints is read at its end only: {reason}");
            self.log.write_about(Severity::Warning, about, text);
        }
    }

    fn listen_to(&mut self, now: Time, pid: Pid, channel: Option<Backchannel>) {
        let added = channel.map(|channel| self.channels.add(pid, channel, &self.poll));
        if let Some(Err(error)) = added {
            let reason = reason(&error);
            let event = Event::Unwritable { pid, reason };
            self.table.step(now, event, &mut self.actions);
        }
    }
}
