//! Many clients in one process (Postfix, `multi_server.c`), with tokio.
//!
//! There are two threads: one accepts clients, like every child, and one serves all clients. tokio
//! could wait on the listeners, too, but a connection would then wake up all idle children instead
//! of one.

mod slots;
mod stream;

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use master::errors::describe_error;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use self::slots::{Slot, Slots};
pub use self::stream::{Client, TimeoutStream};
use crate::options::Transport;
use crate::pass::Arrival;
use crate::single::{STREAMS, accept, log_client_error};
use crate::sys::Accepted;
use crate::waiting::{Waiting, Woken};
use crate::worker::{Limits, Worker};
use crate::{Error, Log, Service};

impl Service {
    /// Serves up to `max_clients` (100) clients at a time, all on one thread. `serve` returns a
    /// future for each client. The connection is closed when the future drops it. Its error is
    /// logged. A future that takes longer than `daemon_timeout` is dropped.
    ///
    /// The process is available to the master until it has `max_clients` clients. When it has to
    /// leave, it accepts no more clients, and ends after the last one. (After a reload, Postfix's
    /// own master still counts the process as available until then, so new clients wait.)
    ///
    /// The service's type is `inet`, `unix` or `pass`.
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    /// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    ///
    /// fn main() -> ExitCode {
    ///     services::run(|service| {
    ///         service.multi(|client| async {
    ///             let mut client = BufReader::new(client);
    ///             let mut line = String::new();
    ///             client.read_line(&mut line).await?;
    ///             client.write_all(line.to_uppercase().as_bytes()).await
    ///         })
    ///     })
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`single`](Self::single).
    pub fn multi<F, Served>(mut self, serve: F) -> Result<(), Error>
    where
        F: Fn(Client) -> Served + 'static,
        Served: Future<Output = io::Result<()>> + 'static,
    {
        let silence = self.ipc_timeout()?;
        let slots = self.number("max_clients", "100", 1)?;
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::system("cannot run tokio"))?;
        if self.is_standard() {
            self.drop_privileges()?;
            let result = runtime.block_on(async { serve(Client::standard(silence)).await });
            // A thread may still block on standard input.
            runtime.shutdown_background();
            return Ok(result?);
        }
        let (transport, worker) = self.begin(&STREAMS)?;
        let (limits, log) = (worker.limits, worker.log.clone());
        let (acceptor, mut arrivals) = Acceptor::new(worker, transport, slots);
        let acceptor = std::thread::Builder::new()
            .name("acceptor".into())
            .spawn(move || acceptor.run())
            .map_err(Error::system("cannot start a thread"))?;
        let serve = Arc::new(serve);
        let clients = LocalSet::new();
        clients.block_on(&runtime, async {
            while let Some((arrival, slot)) = arrivals.recv().await {
                let (serve, log) = (Arc::clone(&serve), log.clone());
                spawn_local(async move {
                    serve_one(arrival, silence, limits.client, &log, &*serve).await;
                    drop(slot);
                });
            }
        });
        // The accepting thread has ended; serve the remaining clients.
        runtime.block_on(clients);
        match acceptor.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

async fn serve_one<Served>(
    arrival: Arrival,
    silence: Duration,
    limit: Duration,
    log: &Log,
    serve: &impl Fn(Client) -> Served,
) where
    Served: Future<Output = io::Result<()>>,
{
    let client = match Client::new(arrival, silence) {
        Ok(client) => client,
        Err(error) => return log.error(describe_error(&error)),
    };
    let peer = client.peer().clone();
    log.detail(format!("connect from {peer}"));
    match timeout(limit, serve(client)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log_client_error(log, &peer, &error),
        Err(_) => log.warning(format!(
            "{peer}: not done within {} seconds",
            limit.as_secs()
        )),
    }
    log.detail(format!("disconnect from {peer}"));
}

/// The thread that accepts clients.
struct Acceptor {
    waiting: Waiting,
    listeners: Arc<[OwnedFd]>,
    transport: Transport,
    limits: Limits,
    log: Log,
    slots: Arc<Slots>,
    /// Unbounded, but never longer than the number of slots.
    clients: UnboundedSender<(Arrival, Slot)>,
}

type Arrivals = UnboundedReceiver<(Arrival, Slot)>;

impl Acceptor {
    fn new(worker: Worker, transport: Transport, slots: u32) -> (Self, Arrivals) {
        let (clients, arrivals) = unbounded_channel();
        let acceptor = Self {
            listeners: worker.listeners(),
            waiting: worker.waiting,
            transport,
            limits: worker.limits,
            log: worker.log,
            slots: Arc::new(Slots::new(worker.status, slots)),
            clients,
        };
        (acceptor, arrivals)
    }

    /// Accepts clients until it is time to leave.
    fn run(self) -> Result<(), Error> {
        let result = self.accept_clients();
        self.slots.close();
        result
    }

    fn accept_clients(&self) -> Result<(), Error> {
        let mut count = 0;
        while self.limits.uses == 0 || count < self.limits.uses {
            let idle_since = self.slots.wait_for_one();
            let woken = self.waiting.wait(self.limits.deadline(idle_since));
            match woken.map_err(Error::system("cannot wait for clients"))? {
                Woken::Listener(index) => {
                    match accept(&self.listeners[index], self.transport, &self.log)? {
                        Accepted::Client(arrival) => {
                            let slot = self.slots.take();
                            // The receiver lives until this thread has ended, so this cannot fail.
                            let _ = self.clients.send((arrival, slot));
                            count += 1;
                        }
                        Accepted::Nobody => {}
                        Accepted::ShutDown => return Ok(()),
                    }
                }
                Woken::ToldToLeave => {
                    self.log.detail("master disconnect -- exiting");
                    return Ok(());
                }
                Woken::Idle if self.is_over() => {
                    self.log.detail("idle timeout -- exiting");
                    return Ok(());
                }
                Woken::Idle => {} // a client has come in the meantime
            }
        }
        self.log.detail("enough clients served -- exiting");
        Ok(())
    }

    /// Whether the process has been idle for `max_idle`, or its retirement time has come.
    fn is_over(&self) -> bool {
        let now = Instant::now();
        let retired = self.limits.retire.is_some_and(|retire| retire <= now);
        retired || self.slots.are_free_for(self.limits.idle)
    }
}
