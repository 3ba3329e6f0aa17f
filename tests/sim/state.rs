//! The fingerprint of a state, which is equal for states with the same future.

use std::hash::{DefaultHasher, Hash, Hasher};

use master::policy::{Action, Pid, Signal, Time};

use crate::kernel::{Message, Phase, Port};
use crate::model::{Account, Ended, Member};
use crate::simulation::Simulation;

/// After this time the past has no effect: warnings may be repeated, and wake-ups are due.
const MEMORY: Time = Time::from_secs(1000);
const MINUTE: Time = Time::from_secs(60);

/// A process without its pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Nameless {
    place: usize,
    phase: Phase,
    told: bool,
    hang_reported: bool,
    defiant: bool,
    signalled: Option<bool>,
    member: Option<Member>,
    /// The remaining time until it has to leave.
    stays: Option<Time>,
    /// The time since its start, as long as that matters.
    young: Option<Time>,
}

/// Equal for states that differ only in pids, generations and the time of day.
pub fn fingerprint(simulation: &mut Simulation) -> u64 {
    let mut hasher = DefaultHasher::new();
    let now = simulation.kernel.now;
    let until_deadline = simulation.until_deadline();
    (until_deadline, simulation.pending(), &simulation.lines).hash(&mut hasher);
    let processes = nameless(simulation);
    let rank = |pid: Pid| processes.iter().position(|(_, known)| *known == pid);
    for (place, account) in &simulation.model.accounts {
        place.hash(&mut hasher);
        hash_account(account, now, &mut hasher);
        if let Some(port) = simulation.kernel.port(*place) {
            hash_port(port, rank, account, &mut hasher);
            let template = port.template.as_ref();
            template
                .map(|template| template.fingerprint(now))
                .hash(&mut hasher);
        }
    }
    for (process, _) in &processes {
        process.hash(&mut hasher);
    }
    simulation.late.hash(&mut hasher);
    for action in &simulation.queue {
        hash_action(action, rank, &mut hasher);
    }
    hasher.finish()
}

/// The processes in an order that does not depend on their pids, and their pids.
fn nameless(simulation: &Simulation) -> Vec<(Nameless, Pid)> {
    let now = simulation.kernel.now;
    let known = |place, pid| {
        let account = simulation.model.accounts.get(&place)?;
        Some((account, account.members.get(&pid)?))
    };
    let member = |place, pid| {
        let (_, member) = known(place, pid)?;
        // Whether a generation is right is visible only in a report.
        Some(Member {
            generation: 0,
            // Seen in `young`.
            started: Time::ZERO,
            busy_since: None,
            told_to_leave: None,
            ended: match member.ended {
                Ended::ByTerm(_) => Ended::ByTerm(Time::ZERO),
                ended => ended,
            },
            ..*member
        })
    };
    let stays = |place, pid| {
        let (account, member) = known(place, pid)?;
        let until = member.due(&account.service, simulation.model.kill_time)?;
        Some(until.saturating_sub(now))
    };
    let young = |place, pid| {
        let (_, member) = known(place, pid)?;
        let matters = member.is_judged() && member.is_young(now);
        matters.then(|| now - member.started)
    };
    let processes = simulation.kernel.processes.iter().enumerate();
    let nameless = processes.map(|(at, process)| Nameless {
        place: process.place.index(),
        phase: process.phase,
        told: simulation.kernel.told(at),
        hang_reported: process.hang_reported,
        defiant: process.defiant,
        signalled: process.signal.map(|s| s == Signal::Kill),
        member: member(process.place, process.pid),
        stays: stays(process.place, process.pid),
        young: young(process.place, process.pid),
    });
    let pids = simulation
        .kernel
        .processes
        .iter()
        .map(|process| process.pid);
    let mut nameless: Vec<_> = nameless.zip(pids).collect();
    nameless.sort_unstable();
    nameless
}

fn hash_account(account: &Account, now: Time, hasher: &mut impl Hasher) {
    let left = |at: Option<Time>| at.map(|at| at.saturating_sub(now));
    let recent = |at: &Time| now - *at <= MEMORY;
    let service = &account.service;
    (&service.name, service.max, service.throttle_time).hash(hasher);
    service
        .wakeup
        .map(|w| (w.every, w.conditional))
        .hash(hasher);
    (left(account.throttled_until), left(account.stress_until)).hash(hasher);
    (left(account.wake_at), account.wake_waits).hash(hasher);
    let minute = |at: &Time| now - *at < MINUTE;
    let said = account.delay_said.filter(minute).map(|at| now - at);
    (account.in_vain, left(account.delayed_until), said).hash(hasher);
    account.period.map(|(at, n)| (now - at, n)).hash(hasher);
    (left(account.kill_at), account.killed).hash(hasher);
    let warned = account.warned_at.filter(recent).map(|at| now - at);
    (account.watched, account.paused, warned).hash(hasher);
    let all = account.counted.clients + account.counted.started;
    let stall_said = account.stall_said.filter(recent).map(|at| now - at);
    (
        account.seen.map(|seen| seen == all),
        account.stalled,
        stall_said,
    )
        .hash(hasher);
    account.spawning.hash(hasher);
    // A memory without effect is not compared.
    let doubles = account
        .throttle
        .filter(|_| service.limits().throttle_most.is_some());
    let clients = service.limits().crash_percent.map(|_| &account.clients);
    (doubles, clients).hash(hasher);
}

fn hash_port(
    port: &Port,
    rank: impl Fn(Pid) -> Option<usize>,
    account: &Account,
    hasher: &mut impl Hasher,
) {
    (port.watched, port.refused, port.waiting).hash(hasher);
    for record in &port.records {
        let report = match record.message {
            Message::Report(report) => {
                let member = account.members.get(&report.pid);
                let current = member.is_some_and(|m| m.generation == report.generation);
                Some((rank(report.pid), current, report.available))
            }
            Message::Garbage | Message::Descriptors => None,
        };
        let descriptors = matches!(record.message, Message::Descriptors);
        (rank(record.writer), report, descriptors).hash(hasher);
    }
}

/// Hashes a queued action, with the rank of its process instead of the pid.
fn hash_action(action: &Action, rank: impl Fn(Pid) -> Option<usize>, hasher: &mut impl Hasher) {
    std::mem::discriminant(action).hash(hasher);
    match *action {
        Action::Watch(id) | Action::Unwatch(id) | Action::Wake(id) | Action::Close(id) => {
            id.hash(hasher);
        }
        Action::Spawn {
            service, stress, ..
        } => (service, stress).hash(hasher),
        Action::Signal { pid, signal } => (rank(pid), signal == Signal::Kill).hash(hasher),
        Action::CloseChannel { pid } => rank(pid).hash(hasher),
        _ => {}
    }
}
