//! Whether a child that ended at once, without a report, took a client. That is looked for only at
//! such an end: what is found then is compared with what is found at the next one.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::Runtime;
use super::services::ServiceIo;
use crate::config::Kind;
use crate::policy::{Event, ExitStatus, Pid, Progress, ServiceId, Time};
use crate::sys::arrivals::{self, Arrivals, first_length, waits};
use crate::sys::queues::Queues;

/// The clients that waited when a child had ended at once.
#[derive(Debug)]
pub(super) struct Remembered {
    /// When that was.
    since: Time,
    waiting: u32,
    arrivals: Arrivals,
    /// Others have come since.
    arrived: bool,
}

impl Remembered {
    fn new(io: &ServiceIo, now: Time) -> io::Result<Self> {
        // In this order: a client that comes meanwhile is among both, which proves nothing.
        let arrivals = Arrivals::new(io.listeners.iter())?;
        Ok(Self {
            since: now,
            waiting: io.waiting()?,
            arrivals,
            arrived: false,
        })
    }

    /// What is found now says of a child that was started since.
    fn compare(&mut self, waiting: impl FnOnce() -> io::Result<u32>) -> io::Result<Progress> {
        let came = self.arrived | self.arrivals.take()?;
        let waiting = waiting()?;
        self.arrived = came | self.arrivals.take()?;
        let fewer = waiting < self.waiting || came && waiting == 0;
        Ok(match self.arrived {
            _ if fewer => Progress::Made,
            true => Progress::Unknown,
            // The first of the datagrams may be another one.
            false if waiting != self.waiting => Progress::Made,
            false => Progress::None,
        })
    }
}

impl ServiceIo {
    /// How many clients wait; of datagrams, something that changes with the first of them.
    fn waiting(&self) -> io::Result<u32> {
        if !self.listeners.iter().any(|listener| waits(&**listener)) {
            return Ok(0);
        }
        let unknown = || io::Error::from(io::ErrorKind::Unsupported);
        match self.service.kind {
            Kind::Inet | Kind::Unix | Kind::Pass => {
                let queues = self.has_path().then(Queues::read).transpose()?;
                let queues = queues.unwrap_or_default();
                self.backlog(&queues).ok_or_else(unknown)
            }
            Kind::UnixDgram => {
                let first = self.listeners.first().ok_or_else(unknown)?;
                Ok(first_length(&**first)?.saturating_add(1))
            }
            Kind::Fifo => Ok(1),
        }
    }

    /// Whether a child took a client that was started at `started` and has ended.
    fn progress(&mut self, now: Time, started: Time) -> io::Result<Progress> {
        let Some(mut remembered) = self.activity().remembered.take() else {
            let waiting = self.waiting()?;
            // A child that no client has asked for may have found one all the same.
            let is_warm = self.service.pool().min_idle > 0;
            if waiting == 0 && !is_warm {
                return Ok(Progress::Made);
            }
            self.activity().remembered = Some(Box::new(Remembered::new(self, now)?));
            return Ok(if is_warm {
                Progress::Unknown
            } else {
                Progress::None
            });
        };
        let progress = if remembered.since > started {
            Progress::Unknown
        } else {
            remembered.compare(|| self.waiting())?
        };
        self.activity().remembered = match progress {
            Progress::Made => None,
            Progress::Unknown if remembered.since <= started => {
                Some(Box::new(Remembered::new(self, now)?))
            }
            _ => Some(remembered),
        };
        Ok(progress)
    }
}

/// How often services are looked at that may hide clients.
const INTERVAL: Duration = Duration::from_secs(5);

impl Runtime {
    /// A child was started: its service may hide clients from now on.
    pub(super) fn look_for_clients_later(&mut self, now: Time) {
        self.look_at.get_or_insert(now + INTERVAL);
    }

    /// Tells the policy of clients that wait where children should have taken them.
    pub(super) fn look_for_clients(&mut self, now: Time) {
        if self.look_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        let services = self.table.services();
        let services = services.filter(|(_, service)| service.may_hide_clients());
        let services = services.filter_map(|(id, _)| Some((id, self.services.get(id)?)));
        let (ids, listeners): (Vec<_>, Vec<_>) = services
            .flat_map(|(id, io)| io.listeners.iter().map(move |fd| (id, fd.as_fd())))
            .unzip();
        let waiting = arrivals::which_wait(&listeners);
        let mut found: Vec<_> = ids.into_iter().zip(waiting).collect();
        // One fact for each service.
        found.dedup_by(|next, first| {
            let same = next.0 == first.0;
            first.1 |= same && next.1;
            same
        });
        if !found.is_empty() {
            self.look_for_clients_later(now);
        }
        for (service, clients) in found {
            self.step(now, Event::Waiting { service, clients });
        }
    }

    /// Whether a child that has ended took a client, where that matters.
    pub(super) fn progress(
        &mut self,
        now: Time,
        id: ServiceId,
        pid: Pid,
        status: ExitStatus,
    ) -> Progress {
        let started = self.table.ended_at_once(now, pid, status);
        let service = started.zip(self.services.get_mut(id));
        // Where the system does not tell, a service is not to suffer for it.
        let found = service.map(|(started, io)| io.progress(now, started));
        found.and_then(Result::ok).unwrap_or(Progress::Unknown)
    }
}
