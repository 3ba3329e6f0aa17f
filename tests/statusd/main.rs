//! The package `statusd`: its program under the master, and the page in a browser. Mostly, what it
//! shows is prepared, so that everything that may happen to a mail system can be seen; and there is
//! a master that runs the statusd that shows it.

mod browser; // Chromium, without a display
mod gallery; // the page, with a past of ten minutes
mod incident; // from the first sign to the end
mod limits; // what a client may cost
mod metrics; // for monitoring
mod mistakes; // in the files of a master that runs
mod page; // for people
mod probes; // for load balancers
mod real; // a master that statusd shows and that runs it
mod site; // what statusd answers
mod stage; // statusd under the master, and another in that one's place
mod truth; // what the master that runs it tells, and it shows

fn main() -> std::process::ExitCode {
    testkit::main()
}
