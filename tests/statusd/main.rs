//! Tests of the package `statusd`: its program under the master, and the page in a browser. Most
//! tests use prepared documents, so that every situation can be shown; some use the master that
//! runs statusd.

mod browser; // Chromium, without a display
mod gallery; // the page, with a past of ten minutes
mod incident; // a walk through an incident
mod limits; // limits on clients
mod metrics; // for monitoring
mod mistakes; // errors in the files of a running master
mod monitoring; // alarms for Prometheus, a dashboard for Grafana
mod names; // of this server
mod page; // for people
mod probes; // for load balancers
mod real; // a master that runs statusd, which shows this master
mod site; // statusd's answers
mod stage; // statusd under the master, with a fake master to show
mod truth; // statusd's data is the master's

fn main() -> std::process::ExitCode {
    testkit::main()
}
