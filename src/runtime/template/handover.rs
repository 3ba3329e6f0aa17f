//! One template in the state that is handed over to the next version.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Weak};

use super::{Fork, State, Template};
use crate::config::Service;
use crate::runtime::upgrade::{Received, Saving};
use crate::sys::child::ChildProcess;
use crate::sys::listen::Listener;
use crate::sys::poll::{Interest, Poll};
use crate::sys::template_socket::TemplateSocket;
use crate::upgrade::{ChannelState, ForkState, TemplateState, TemplateStep};

impl Template {
    pub(in crate::runtime) fn save(&self, saving: &mut Saving) -> TemplateState {
        let listeners = self.listeners.iter().map(Weak::upgrade);
        TemplateState {
            pid: self.pid,
            config: saving.config(&self.service),
            // Those that services have stay open.
            listeners: listeners
                .map(|listener| Some(listener?.as_fd().as_raw_fd()))
                .collect(),
            channel: saving.channel(&self.channel),
            socket: ChannelState {
                fd: saving.fd(&self.socket),
                refuses: self.socket.refuses(),
            },
            is_socket_watched: self.is_socket_watched,
            line: self.line.clone(),
            step: match &self.state {
                State::Loading(until) => TemplateStep::Loading(*until),
                State::Idle => TemplateStep::Idle,
                State::Forking(fork) => TemplateStep::Forking(fork.save(saving)),
                State::Closed(until, order) => TemplateStep::Closed(*until, *order),
            },
            started: self.started,
            forked: self.forked,
            refusals: self.refusals,
        }
    }

    /// A template that goes on, and of which the poller reports what it did before. `listeners` are
    /// those of all services, by their descriptors.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(in crate::runtime) fn resume(
        state: TemplateState,
        configs: &[Arc<Service>],
        listeners: &HashMap<RawFd, Arc<Listener>>,
        received: &mut Received,
        poll: &Poll,
    ) -> io::Result<Self> {
        let service = configs.get(state.config).ok_or(io::ErrorKind::NotFound)?;
        let known = |fd: Option<RawFd>| listeners.get(&fd?).map(Arc::downgrade);
        let own = state.listeners.into_iter();
        let socket = received.take(state.socket.fd)?;
        let template = Self {
            pid: state.pid,
            service: service.clone(),
            listeners: own.map(|fd| known(fd).unwrap_or_default()).collect(),
            channel: received.channel(state.channel)?,
            socket: TemplateSocket::resume(socket, state.socket.refuses),
            is_socket_watched: state.is_socket_watched,
            line: state.line,
            state: match state.step {
                TemplateStep::Loading(until) => State::Loading(until),
                TemplateStep::Idle => State::Idle,
                TemplateStep::Forking(fork) => {
                    State::Forking(Box::new(Fork::resume(fork, received)?))
                }
                TemplateStep::Closed(until, order) => State::Closed(until, order),
            },
            started: state.started,
            forked: state.forked,
            refused: Vec::new(),
            refusals: state.refusals,
        };
        template.watch_again(poll)?;
        Ok(template)
    }

    fn watch_again(&self, poll: &Poll) -> io::Result<()> {
        let key = self.key();
        if !matches!(self.state, State::Closed(..)) {
            poll.add(&self.channel, key, Interest::Readable)?;
        }
        if self.is_socket_watched {
            poll.add(&self.socket, key, Interest::Readable)?;
        }
        if let State::Forking(fork) = &self.state {
            if let Some(connection) = fork.connection.as_ref().filter(|_| !fork.is_ready) {
                poll.add(connection, key, Interest::Readable)?;
            }
        }
        Ok(())
    }
}

impl Fork {
    fn save(&self, saving: &mut Saving) -> ForkState {
        let connection = self.connection.as_ref();
        let child = self.child.as_ref();
        ForkState {
            order: self.order,
            until: self.until,
            is_forked: self.is_forked,
            connection: connection.map(|connection| saving.channel(connection)),
            child: child.map(|child| (child.pid(), saving.fd(child))),
            is_ready: self.is_ready,
            is_lost: self.is_lost,
        }
    }

    fn resume(state: ForkState, received: &mut Received) -> io::Result<Self> {
        let connection = state.connection.map(|channel| received.channel(channel));
        let child = state
            .child
            .map(|(pid, fd)| Ok::<_, io::Error>(ChildProcess::new(pid, received.take(fd)?)));
        Ok(Self {
            order: state.order,
            until: state.until,
            is_forked: state.is_forked,
            connection: connection.transpose()?,
            child: child.transpose()?,
            is_ready: state.is_ready,
            is_lost: state.is_lost,
        })
    }
}
