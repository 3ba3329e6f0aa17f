//! `masterctl simulate` beside a real master: the same clients, at the same times.

use std::thread;
use std::time::{Duration, Instant};

use master::policy::Time;
use serde_json::Value;
use testkit::client::Client;
use testkit::operator::{service, told};
use testkit::ports::Port;
use testkit::programs::example;
use testkit::standalone::Standalone;
use testkit::{needs_root, test};

/// What may be different, in percent: clients of a real system come late, and wait for processors.
const DIFFERENCE: f64 = 15.0;
/// And for the longest waits.
const DIFFERENCE_P99: f64 = 40.0;
/// A time that a busy machine adds to each wait.
const NOISE: Duration = Duration::from_millis(100);

const SEED: u64 = 7;
/// Attempts at the most.
const ROUNDS: usize = 3;
/// Runs in the long form.
const LONG: u64 = 10;

/// Clients a second, and how long each takes, of a service with a process limit.
#[derive(Clone, Copy)]
struct Clients {
    rate: f64,
    time: Duration,
    maxproc: u32,
    period: Duration,
    seed: u64,
}

impl Clients {
    /// When they come: as `masterctl simulate` has them come with this seed.
    fn arrivals(self) -> Vec<Time> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut now = Time::ZERO;
        let next = || {
            now += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / self.rate);
            Some(now).filter(|now| *now <= self.period)
        };
        std::iter::from_fn(next).collect()
    }

    /// A master with the service, and its address.
    fn stage(self) -> (Standalone, String, Port) {
        let (mut standalone, port) = (Standalone::new(), Port::reserve());
        let hello = standalone.install(&example("hello"));
        let address = format!("127.0.0.1:{port}");
        let limit = self.maxproc;
        let table = format!("{address} inet n n n - {limit} {} serve", hello.display());
        standalone.write_table(&table);
        standalone.start();
        (standalone, address, port)
    }

    /// The waits of real clients, in ascending order.
    fn measure(self, address: &str) -> Vec<Duration> {
        let began = Instant::now();
        let client = |at: Time| {
            thread::sleep(at.saturating_sub(began.elapsed()));
            let mut client = Client::connect(address);
            client.line();
            let waited = began.elapsed().saturating_sub(at);
            thread::sleep(self.time);
            waited
        };
        let mut waits: Vec<Duration> = thread::scope(|scope| {
            let clients = self.arrivals().into_iter();
            let clients: Vec<_> = clients.map(|at| scope.spawn(move || client(at))).collect();
            clients
                .into_iter()
                .map(|client| client.join().expect("a client"))
                .collect()
        });
        waits.sort_unstable();
        waits
    }

    fn simulate(self, standalone: &Standalone, address: &str) -> Value {
        let text = |time: Duration| format!("{}ms", time.as_millis());
        let (rate, seed) = (self.rate.to_string(), self.seed.to_string());
        let (time, period) = (text(self.time), text(self.period));
        let options = [
            ("--rate", &*rate),
            ("--time", &time),
            ("--service", address),
            ("--period", &period),
            ("--seed", &seed),
            ("--warm-up", "0"),
            ("--start", "5ms"),
            ("--max-use", "0"),
            ("--max-idle", "1h"),
        ];
        let mut arguments = vec!["simulate", "--json"];
        arguments.extend(options.iter().flat_map(|(name, value)| [name, value]));
        let report: Value = serde_json::from_str(&told(standalone, &arguments)).expect("JSON");
        report["runs"][0].clone()
    }

    /// Asserts that the simulation tells what a real system does: in one of some attempts, for a machine
    /// may be busy; or, with `MASTER_TEST_LOADS`, on average over ten runs with other clients each.
    #[track_caller]
    fn expect_the_same(self) {
        if std::env::var_os("MASTER_TEST_LOADS").is_some() {
            let runs: Vec<_> = (1..=LONG).map(|seed| Self { seed, ..self }.run()).collect();
            let compared = Compared::mean(&runs);
            println!("{compared:.3?}\n{runs:.3?}");
            assert!(compared.is_the_same(), "{compared:.3?}\n{runs:.3?}");
            return;
        }
        let mut failures = Vec::new();
        for _ in 0..ROUNDS {
            let compared = self.run();
            if compared.is_the_same() {
                return;
            }
            failures.push(compared);
        }
        panic!("{failures:#?}");
    }

    /// A run of the simulation and of a real system.
    fn run(self) -> Compared {
        let (standalone, address, _port) = self.stage();
        let report = self.simulate(&standalone, &address);
        let number = |name: &str| report[name].as_f64().expect("a number");
        let waits = self.measure(&address);
        assert_eq!(number("clients"), waits.len() as f64, "{report}");
        let seen = |percent: usize| waits[(waits.len() * percent).div_ceil(100) - 1].as_secs_f64();
        let started = service(&standalone, &address).started;
        Compared {
            real: Figures {
                wait_p50: seen(50),
                wait_p99: seen(99),
                starts: started as f64,
            },
            simulated: Figures {
                wait_p50: number("wait_p50"),
                wait_p99: number("wait_p99"),
                starts: number("starts_per_second") * self.period.as_secs_f64(),
            },
        }
    }
}

/// Waits in seconds, and how many children were started.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    wait_p50: f64,
    wait_p99: f64,
    starts: f64,
}

impl Figures {
    fn mean(all: impl Iterator<Item = Self> + Clone) -> Self {
        let count = all.clone().count() as f64;
        let mean = |of: fn(Self) -> f64| all.clone().map(of).sum::<f64>() / count;
        Self {
            wait_p50: mean(|figures| figures.wait_p50),
            wait_p99: mean(|figures| figures.wait_p99),
            starts: mean(|figures| figures.starts),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Compared {
    real: Figures,
    simulated: Figures,
}

impl Compared {
    fn mean(runs: &[Self]) -> Self {
        Self {
            real: Figures::mean(runs.iter().map(|run| run.real)),
            simulated: Figures::mean(runs.iter().map(|run| run.simulated)),
        }
    }

    fn is_the_same(&self) -> bool {
        let near = |of: fn(&Figures) -> f64, percent: f64, least: f64| {
            let (real, simulated) = (of(&self.real), of(&self.simulated));
            (real - simulated).abs() <= least.max(real * percent / 100.0)
        };
        let noise = NOISE.as_secs_f64();
        near(|figures| figures.wait_p50, DIFFERENCE, noise)
            && near(|figures| figures.wait_p99, DIFFERENCE_P99, noise)
            // A start more or less is chance where there are few.
            && near(|figures| figures.starts, DIFFERENCE, 2.0)
    }
}

#[test]
fn a_simulated_service_with_room_for_all_is_like_a_real_one() {
    needs_root("a master that keeps to itself");
    let time = Duration::from_secs(1);
    let period = Duration::from_secs(10);
    Clients {
        rate: 5.0,
        time,
        maxproc: 20,
        period,
        seed: SEED,
    }
    .expect_the_same();
}

#[test]
fn a_simulated_service_near_its_limit_is_like_a_real_one() {
    needs_root("a master that keeps to itself");
    let time = Duration::from_secs(1);
    let period = Duration::from_secs(25);
    Clients {
        rate: 4.4,
        time,
        maxproc: 5,
        period,
        seed: SEED,
    }
    .expect_the_same();
}

/// Those that wait are fewer than the listener's queue has room for.
#[test]
fn a_simulated_service_beyond_its_limit_is_like_a_real_one() {
    needs_root("a master that keeps to itself");
    let time = Duration::from_secs(1);
    let period = Duration::from_secs(12);
    Clients {
        rate: 8.0,
        time,
        maxproc: 5,
        period,
        seed: SEED,
    }
    .expect_the_same();
}

#[test]
fn the_load_of_a_running_service_is_measured() {
    needs_root("a master that keeps to itself");
    let load = Clients {
        rate: 20.0,
        time: Duration::from_millis(200),
        maxproc: 20,
        period: Duration::from_secs(6),
        seed: SEED,
    };
    let (standalone, address, _port) = load.stage();
    // masterctl is built before the first client comes.
    told(&standalone, &["status"]);
    let report = thread::scope(|scope| {
        let clients = scope.spawn(|| load.measure(&address));
        let arguments = ["simulate", "--json", "--from", &address, "--sample", "4s"];
        let report = told(&standalone, &arguments);
        clients.join().expect("clients");
        report
    });
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let number = |name: &str| report[name].as_f64().expect("a number");
    assert!((14.0..26.0).contains(&number("rate")), "{report}");
    assert!((0.14..0.28).contains(&number("time")), "{report}");
}
