//! Starts children, and takes up our ends of what each of them was given for itself.

use std::io;
use std::os::fd::AsFd;

use super::ports::{about, described, exec_failed};
use super::{Runtime, errno};
use crate::errors::describe_error;
use crate::log::{About, Severity};
use crate::policy::{Event, OrderFailure, Pid, ServiceId, Time};
use crate::sys::backchannel::Backchannel;
use crate::sys::output::OutputPipe;
use crate::sys::spawn::Spawned;

/// A child that was started, and our ends of what it was given for itself.
struct Started {
    spawned: Spawned,
    channel: Channel,
    output: Option<OutputPipe>,
}

/// Our end of what is descriptor 5 to a child.
enum Channel {
    /// At this place.
    Status(usize),
    /// Of a child of an ordered pool.
    Backchannel(Backchannel),
}

impl Runtime {
    /// Starts a child, and tells the policy what came of it.
    pub(super) fn spawn(&mut self, now: Time, service: ServiceId, generation: u32, stress: bool) {
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
                return match started.channel {
                    Channel::Status(place) => self.reports.started(place, pid),
                    Channel::Backchannel(channel) => self.listen_to(now, pid, channel),
                };
            }
            Err(error) => Event::SpawnFailed {
                service,
                error: errno(&error),
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
            reports,
            poll,
            spawner,
            environment,
            ..
        } = self;
        let (output, printed) = match ports.is_captured(id) {
            true => OutputPipe::new().map(|(ours, theirs)| (Some(ours), Some(theirs)))?,
            false => (None, None),
        };
        let (channel, theirs) = match ports.is_ordered(id) {
            true => Backchannel::new()
                .map(|(ours, theirs)| (Channel::Backchannel(ours), Some(theirs)))?,
            false => (Channel::Status(reports.open(id, poll)?), None),
        };
        let status = match channel {
            Channel::Status(place) => reports.childs_end(place),
            Channel::Backchannel(_) => theirs.as_ref().map(AsFd::as_fd),
        };
        let status = status.ok_or(io::ErrorKind::NotFound)?;
        let printed = printed.as_ref().map(AsFd::as_fd);
        let run = self.setup.run;
        let ready = ports.ready_to_spawn(id, run, stress, status, printed);
        let spawned = ready.and_then(|(program, descriptors)| {
            spawner.spawn(program, environment, generation, descriptors)
        });
        match spawned {
            Ok(spawned) => Ok(Started {
                spawned,
                channel,
                output,
            }),
            Err(error) => {
                if let Channel::Status(place) = channel {
                    reports.close(place);
                }
                Err(error)
            }
        }
    }

    fn read_from(&mut self, id: ServiceId, pid: Pid, output: Option<OutputPipe>) {
        let Some((output, service)) = output.zip(self.ports.service(id)) else {
            return;
        };
        let of = (id, service.clone());
        if let Err(error) = self.outputs.add(pid, of, output, &self.poll) {
            let (name, reason) = (described(service), describe_error(&error));
            let about = About {
                child: Some(pid),
                ..about(service)
            };
            let text =
                format!("{name}: what process {pid} prints is read at its end only: {reason}");
            self.log.write_about(Severity::Warning, about, text);
        }
    }

    fn listen_to(&mut self, now: Time, pid: Pid, channel: Backchannel) {
        if let Err(error) = self.channels.add(pid, channel, &self.poll) {
            let failure = OrderFailure::System(errno(&error));
            let event = Event::OrderFailed { pid, failure };
            self.table.step(now, event, &mut self.actions);
        }
    }
}
