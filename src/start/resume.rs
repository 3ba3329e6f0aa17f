//! The start of a program that goes on in the place of its former version, and its answer when it is
//! only asked whether it could.

use std::ffi::OsStr;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context;

use super::Exit;
use super::finish;
use crate::config::RunOptions;
use crate::files::beside_this_program;
use crate::log::{Log, Severity};
use crate::options::Options;
use crate::output::answer;
use crate::runtime::{
    Clock, Inherited, Received, Runtime, Setup, environment, log_error, log_settings,
};
use crate::sandbox;
use crate::sys::spawn::Spawner;
use crate::sys::{privilege, process, signal, upgrade};
use crate::upgrade::{State, VARIABLE, check_clocks, read_variable};

/// Answers whether this program could go on from a state, and changes nothing.
pub(super) fn check(fd: RawFd) -> ExitCode {
    let understood = understand(fd).map_err(|error| format!("{error:#}"));
    answer("master", &crate::upgrade::answer(&understood));
    ExitCode::from(u8::from(understood.is_err()))
}

fn understand(fd: RawFd) -> anyhow::Result<()> {
    let text = upgrade::read_state(fd).context("cannot read the state")?;
    check_clocks(&text)?;
    let state = State::decode(&text)?;
    state.check()?;
    for fd in state.descriptors {
        upgrade::is_open(fd)?;
    }
    Ok(())
}

/// The descriptor of the state from which this process is to go on, if there is one.
pub(super) fn handed_over(inherited: &mut Inherited) -> Option<RawFd> {
    let value = inherited.remove(OsStr::new(VARIABLE))?;
    read_variable(value.to_str()?, std::process::id())
}

/// A master that has gone on, and what it must keep.
pub(super) struct Resumed {
    runtime: Runtime,
    _locks: Vec<OwnedFd>,
}

impl Resumed {
    pub(super) fn run(mut self, options: &Options) -> Exit {
        let ending = self.runtime.run();
        finish(options, ending, self.runtime.log())
    }
}

/// Goes on from a state, with what the former program has left open.
///
/// # Errors
/// What cannot be done without. The process has no descriptors above 2 then but the service manager's
/// listeners, which are in `kept`, and may start anew.
pub(super) fn resume(
    options: &Options,
    fd: RawFd,
    mut inherited: Inherited,
    clock: Rc<dyn Clock>,
    kept: &mut Vec<OwnedFd>,
) -> anyhow::Result<Resumed> {
    process::set_umask(0o077);
    signal::reset().context("cannot reset signals")?;
    let text = upgrade::read_state(fd).context("cannot read the state")?;
    let state = State::decode(&text)?;
    let table = state.check()?;
    let unknown = if state.version == env!("CARGO_PKG_VERSION") {
        Vec::new()
    } else {
        state.unknown_fields(&text)?
    };
    drop(text);
    *kept = upgrade::keep(&state.process.inherited, &state.descriptors);
    let received = upgrade::take_over(&state.descriptors, kept)?;
    let spawner = Spawner::resume(state.process.limit, state.process.unfinished.clone())
        .context("cannot reserve descriptors")?;
    let mut received = Received::new(received);
    let locks = state.process.locks.clone();
    let held = locks.iter().map(|fd| received.take(*fd));
    let held = held.collect::<Result<_, _>>()?;
    let path = state.location.for_children().as_os_str().to_owned();
    if options.configuration.is_some() || state.location.is_stand_alone() {
        inherited.insert("MAIL_CONFIG".into(), path);
    }
    process::set_environment(&environment(&state.parameters, &inherited));
    let mut log = Log::new(log_settings(&state.parameters, state.log.terminal));
    log.resume_lost(state.log.lost, state.log.reason.clone());
    log.catch_panics();
    if !unknown.is_empty() {
        let names = unknown.join(", ");
        log.warning(format!(
            "ignoring fields of the former program's state: {names}"
        ));
    }
    let supervisor = super::supervisor(&inherited, &mut log);
    let setup = Setup {
        location: state.location.clone(),
        run: RunOptions {
            attached: options.attached,
            verbose: options.verbose > 0,
            without_root: !privilege::is_root(),
        },
        executor: beside_this_program(sandbox::PROGRAM),
        program: state.process.program.clone(),
        locks,
        exit_at: state.process.exit_at,
        clock,
        inherited,
        supervisor,
    };
    let (mut runtime, resumed) = Runtime::resume(setup, state, table, spawner, received, log)?;
    // From now on the watchdog has its handler, and signals are taken as events.
    runtime.start_watchdog()?;
    signal::release().context("cannot take signals")?;
    runtime.announce_upgrade(resumed);
    process::trim_memory();
    kept.clear();
    Ok(Resumed {
        runtime,
        _locks: held,
    })
}

/// Says that this program could not go on, and starts anew.
pub(super) fn complain(log: &mut Log, error: &anyhow::Error) {
    log_error(log, Severity::Error, error);
    log.error(
        "the state of the former program cannot be gone on from: starting anew; children that are \
         left finish with their clients",
    );
}
