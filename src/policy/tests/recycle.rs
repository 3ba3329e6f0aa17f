//! Children that leave for others to take their places.

use super::ordered::{filled, pool};
use super::*;
use crate::policy::recycle::RECYCLED_MAX;

const AGE: Duration = Duration::from_secs(1000);
const MEGABYTE: u64 = 1 << 20;

fn limited(service: config::Service, limits: ChildLimits) -> config::Service {
    let mut extra = service.extra.clone().unwrap_or_default();
    extra.limits = limits;
    config::Service {
        extra: extra.boxed(),
        ..service
    }
}

fn used(max_uses: u32) -> ChildLimits {
    ChildLimits {
        max_uses: Some(max_uses),
        ..ChildLimits::default()
    }
}

fn aging() -> ChildLimits {
    ChildLimits {
        max_age: Some(AGE),
        ..ChildLimits::default()
    }
}

fn small() -> ChildLimits {
    ChildLimits {
        memory_recycle: Some(10 * MEGABYTE),
        ..ChildLimits::default()
    }
}

/// The children that were told to leave.
fn told(actions: &[Action]) -> Vec<Pid> {
    let told = actions.iter().filter_map(|action| match action {
        Action::CloseChannel { pid } => Some(*pid),
        _ => None,
    });
    told.collect()
}

impl Fixture {
    fn serves(&mut self, child: (Pid, u32)) -> Vec<Action> {
        let taken = self.taken(FIRST, child);
        assert_eq!(told(&taken), [0; 0]);
        self.available(FIRST, child)
    }

    fn measured(&mut self, pid: Pid, megabytes: u64) -> Vec<Action> {
        let bytes = megabytes * MEGABYTE;
        self.step(Event::Measured { pid, bytes })
    }
}

#[test]
fn a_child_leaves_after_its_last_client() {
    let mut fixture = Fixture::new([limited(inet(25, 10), used(2))]);
    let child = fixture.spawn(FIRST);
    assert_eq!(told(&fixture.serves(child)), [0; 0]);
    assert_eq!(told(&fixture.serves(child)), [child.0]);
    assert_eq!(fixture.counts(FIRST), (0, 1));
    // It took another one before it knew: it leaves after that.
    assert_eq!(without_logs(fixture.taken(FIRST, child)), []);
    assert_eq!(logged(&fixture.exit(child, ExitStatus::Code(0))), [""; 0]);
    assert_eq!(fixture.counts(FIRST), (0, 0));
}

#[test]
fn one_client_is_the_least() {
    let mut fixture = Fixture::new([limited(inet(25, 10), used(1))]);
    let child = fixture.spawn(FIRST);
    assert_eq!(told(&fixture.serves(child)), [child.0]);
}

#[test]
fn in_an_ordered_pool_no_further_order_goes_to_a_used_child() {
    let (mut fixture, pids) = filled(limited(pool(2, 3), used(1)));
    fixture.connect(FIRST);
    fixture.now_busy(pids[0]);
    let actions = fixture.idle(pids[0]);
    assert_eq!(told(&actions), [pids[0]]);
    let signal = Signal::Int;
    assert!(actions.contains(&Action::Signal {
        pid: pids[0],
        signal
    }));
    fixture.served_by(pids[1]);
}

#[test]
fn few_children_leave_at_a_time() {
    let mut fixture = Fixture::new([limited(inet(25, 10), used(1))]);
    let children: Vec<_> = (0..6).map(|_| fixture.busy(FIRST)).collect();
    let mut leaving = Vec::new();
    for child in &children {
        leaving.extend(told(&fixture.available(FIRST, *child)));
    }
    assert_eq!(leaving.len(), RECYCLED_MAX as usize);
    // Each end lets another one leave.
    for child in &children {
        let next = told(&fixture.exit(*child, ExitStatus::Code(0)));
        leaving.extend(next);
    }
    let mut pids: Vec<_> = children.iter().map(|(pid, _)| *pid).collect();
    pids.sort_unstable();
    leaving.sort_unstable();
    assert_eq!(leaving, pids);
}

#[test]
fn a_child_leaves_at_its_age_or_shortly_before() {
    let mut fixture = Fixture::new([limited(inet(25, 10), aging())]);
    let (pid, _) = fixture.spawn(FIRST);
    assert_eq!(told(&fixture.pass(AGE * 9 / 10 - SECOND)), [0; 0]);
    assert_eq!(told(&fixture.pass(AGE / 10 + SECOND)), [pid]);
}

#[test]
fn a_busy_child_that_is_old_leaves_after_its_client() {
    let mut fixture = Fixture::new([limited(inet(25, 10), aging())]);
    let child = fixture.busy(FIRST);
    assert_eq!(told(&fixture.pass(2 * AGE)), [0; 0]);
    assert_eq!(told(&fixture.available(FIRST, child)), [child.0]);
}

#[test]
fn children_of_one_moment_leave_at_different_times_which_the_seed_says() {
    let times = |seed| {
        let mut fixture = Fixture::new([limited(inet(25, 0), aging())]);
        fixture.table.seed(seed);
        let children: Vec<_> = (0..20).map(|_| fixture.busy(FIRST)).collect();
        let mut times = Vec::new();
        for child in children {
            fixture.available(FIRST, child);
        }
        let end = fixture.now + AGE;
        while let Some(at) = fixture.table.next_deadline().filter(|&at| at <= end) {
            fixture.now = at;
            for pid in told(&fixture.step(Event::Deadline)) {
                times.push(at);
                fixture.exit((pid, 0), ExitStatus::Code(0));
            }
        }
        assert_eq!(times.len(), 20);
        times
    };
    let first = times(1);
    let mut distinct = first.clone();
    distinct.dedup();
    assert!(distinct.len() >= 15, "{distinct:?}");
    assert_eq!(first, times(1));
    assert_ne!(first, times(2));
}

#[test]
fn a_child_that_uses_too_much_memory_leaves_when_it_has_no_client() {
    let mut fixture = Fixture::new([limited(inet(25, 10), small())]);
    let child = fixture.busy(FIRST);
    let (pid, _) = child;
    assert!(fixture.pass(5 * SECOND).contains(&Action::Measure { pid }));
    assert_eq!(told(&fixture.measured(pid, 10)), [0; 0]);
    assert_eq!(told(&fixture.measured(pid, 11)), [0; 0]);
    let actions = fixture.available(FIRST, child);
    assert_eq!(told(&actions), [pid]);
    assert_eq!(
        logged(&actions),
        [format!(
            "service \"25\" (25): process /usr/lib/postfix/sbin/smtpd pid {pid} uses 11264 KB of \
             memory, telling it to leave"
        )]
    );
}

#[test]
fn a_child_that_has_returned_memory_stays() {
    let mut fixture = Fixture::new([limited(inet(25, 10), small())]);
    let child = fixture.busy(FIRST);
    fixture.measured(child.0, 11);
    fixture.measured(child.0, 9);
    assert_eq!(told(&fixture.available(FIRST, child)), [0; 0]);
}

#[test]
fn nothing_is_measured_without_children_or_without_need() {
    let mut fixture = Fixture::new([limited(inet(25, 10), small())]);
    assert_eq!(fixture.pass(60 * SECOND), []);
    let child = fixture.spawn(FIRST);
    fixture.exit(child, ExitStatus::Code(0));
    assert_eq!(without_logs(fixture.pass(60 * SECOND)), []);
    let mut fixture = Fixture::new([inet(25, 10)]);
    let child = fixture.spawn(FIRST);
    fixture.measured(child.0, 1000);
    assert_eq!(fixture.pass(60 * SECOND), []);
}

#[test]
fn a_recycled_child_that_stays_is_ended_after_the_time_to_stop() {
    let limits = ChildLimits {
        stop_timeout: Some(30 * SECOND),
        ..used(1)
    };
    let mut fixture = Fixture::new([limited(inet(25, 10), limits)]);
    let child = fixture.spawn(FIRST);
    fixture.serves(child);
    let (pid, signal) = (child.0, Signal::Term);
    let actions = without_logs(fixture.pass(30 * SECOND));
    assert_eq!(actions, [Action::Signal { pid, signal }]);
}

#[test]
fn a_removed_service_recycles_none() {
    let mut fixture = Fixture::new([limited(inet(25, 10), aging())]);
    fixture.busy(FIRST);
    fixture.reload([]);
    let signals = without_logs(fixture.pass(2 * AGE));
    assert_eq!(told(&signals), [0; 0]);
}

#[test]
fn a_reload_changes_the_number_of_uses_of_an_ordered_pool() {
    let (mut fixture, pids) = filled(limited(pool(2, 3), used(1000)));
    fixture.reload([limited(pool(2, 3), used(1))]);
    fixture.connect(FIRST);
    fixture.now_busy(pids[0]);
    assert_eq!(told(&fixture.idle(pids[0])), [pids[0]]);
}
