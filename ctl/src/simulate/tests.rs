use super::*;

/// The runs for these limits.
fn runs(options: &str) -> Vec<Run> {
    let warm_up = if options.contains("--warm-up") {
        ""
    } else {
        "--warm-up 0"
    };
    let line = format!("masterctl simulate {warm_up} {options}");
    let arguments = <Arguments as clap::Parser>::parse_from(line.split_whitespace());
    let crate::arguments::Command::Simulate(options) = arguments.command else {
        panic!("another command");
    };
    let load = load(&options, options.rate, options.time).unwrap();
    report(&usual(), &load, &options).runs
}

#[test]
fn clients_wait_only_for_the_start_of_a_child_where_there_is_room() {
    let [run] = &runs("--rate 20 --time 1s --maxproc 100 --start 50ms")[..] else {
        panic!("one run");
    };
    assert!((11_000..13_000).contains(&run.clients), "{run:?}");
    assert_eq!((run.refused, run.at_limit), (0, 0.0), "{run:?}");
    assert!(run.wait_p50 < 0.001, "{run:?}");
    // While a child starts, the next one must wait for it.
    assert!((0.05..0.5).contains(&run.wait_most), "{run:?}");
}

/// Little's law: 20 clients a second of 1 s need 20 children.
#[test]
fn as_many_children_are_there_as_clients_need_at_least() {
    let runs = runs("--rate 20 --time 1s --maxproc 100 --max-idle 1s");
    let mean = runs[0].children_mean;
    assert!((20.0..28.0).contains(&mean), "{mean}");
}

#[test]
fn a_limit_below_the_need_has_clients_wait_until_the_queue_is_full() {
    let runs = runs("--rate 20 --time 1s --maxproc 10,40");
    let [low, high] = &runs[..] else {
        panic!("two runs");
    };
    // Ten a second are served, so the queue of 100 takes 10 s.
    assert!((9.0..12.0).contains(&low.wait_p50), "{low:?}");
    assert!(low.refused > 5_000 && low.at_limit > 0.9, "{low:?}");
    assert!(low.stressed > 0.9 && high.stressed < 0.1, "{runs:?}");
    assert!(high.wait_p99 < 0.2 && high.refused == 0, "{high:?}");
    assert_eq!(low.children_most, 10);
}

#[test]
fn slow_clients_take_children_away_from_the_others() {
    let quick = &runs("--rate 10 --time 100ms --maxproc 5")[0];
    let slow = &runs("--rate 10 --time 100ms --slow 10%:10s --maxproc 5")[0];
    assert!(quick.wait_p99 < 0.2, "{quick:?}");
    assert!(slow.wait_p50 > 1.0, "{slow:?}");
}

#[test]
fn stress_mode_with_a_shorter_time_limit_serves_more() {
    let without = &runs("--rate 20 --time 1s --maxproc 10")[0];
    let with = &runs("--rate 20 --time 1s --maxproc 10 --stress-time 200ms")[0];
    assert!(
        with.clients > without.clients + 1_000,
        "{with:?}\n{without:?}"
    );
}

#[test]
fn a_child_that_leaves_after_few_clients_costs_starts() {
    let once = &runs("--rate 20 --time 10ms --max-use 1")[0];
    let often = &runs("--rate 20 --time 10ms --max-use 100")[0];
    assert!((19.0..21.0).contains(&once.starts_per_second), "{once:?}");
    assert!(often.starts_per_second < 0.5, "{often:?}");
}

/// The children of the beginning start one after the other, for which the first clients wait.
#[test]
fn the_warm_up_does_not_count() {
    let options = "--rate 100 --time 1s --start 100ms --maxproc 200 --period 60s";
    let cold = &runs(options)[0];
    let warm = &runs(&format!("{options} --warm-up 60s"))[0];
    assert!(cold.wait_most > 1.0, "{cold:?}");
    assert!(warm.wait_most < 0.5, "{warm:?}");
    assert!(
        warm.children_most >= 100 && warm.starts_per_second < 2.0,
        "{warm:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let options = "--rate 20 --time 1s --maxproc 20 --seed";
    let result = |seed| format!("{:?}", runs(&format!("{options} {seed}")));
    assert_eq!(result(1), result(1));
    assert_ne!(result(1), result(2));
}
