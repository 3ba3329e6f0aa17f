//! Applies the settings, in an order in which none keeps a later one from being applied.

use std::fs::File;
use std::io::{self, Write};

use landlock::RulesetCreated;
use master::errors::describe_error;
use master::sandbox::{Bounds, Failure, IoPriority, Limit, Sandbox};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use crate::calls::{self, Filter};
use crate::{files, privileges, sys};

/// Settings that are ready to be applied.
pub struct Prepared {
    sandbox: Sandbox,
    cpus: Option<CpuSet>,
    /// The file, and what to write to it, at once.
    oom_score: Option<(File, String)>,
    filters: Vec<Filter>,
    files: Option<RulesetCreated>,
}

impl Prepared {
    /// Does what needs memory or files.
    pub fn new(sandbox: Sandbox) -> Result<Self, Failure> {
        let oom_score = sandbox.oom_score_adjust.map(|score| {
            let file = File::options().write(true).open("/proc/self/oom_score_adj");
            Ok((named("oom_score_adjust", file)?, score.to_string()))
        });
        let filters = sandbox.system_call_filter.as_ref();
        let filters = filters.map(|filter| calls::compile(filter, sandbox.system_call_kill));
        let filters = filters.transpose().map_err(|reason| Failure {
            setting: Some(FILTER.to_owned()),
            reason,
        })?;
        let are_any = sandbox.files.are_restricted() || sandbox.isolate.is_any();
        let files = are_any.then(|| files::prepare(&sandbox));
        let files = files.transpose()?;
        Ok(Self {
            files,
            filters: filters.unwrap_or_default(),
            oom_score: oom_score.transpose()?,
            cpus: named("cpu_affinity", cpus(&sandbox.cpu_affinity))?,
            sandbox,
        })
    }

    pub fn apply(mut self) -> Result<(), Failure> {
        let Sandbox {
            limits,
            nice,
            ionice,
            umask: mask,
            ..
        } = &self.sandbox;
        if let Some(cpus) = &self.cpus {
            named("cpu_affinity", set_cpus(cpus))?;
        }
        if let Some(nice) = *nice {
            named("nice", sys::set_nice(nice))?;
        }
        if let Some(priority) = *ionice {
            named("ionice", set_io_priority(priority))?;
        }
        if let Some((file, score)) = &mut self.oom_score {
            named("oom_score_adjust", file.write_all(score.as_bytes()))?;
        }
        if let Some(mask) = *mask {
            umask(Mode::from_bits_truncate(mask));
        }
        for (limit, bounds) in limits {
            let is_ceiling = self.sandbox.ceilings.contains(limit);
            named(limit.setting(), set_limit(*limit, *bounds, is_ceiling))?;
        }
        privileges::apply(&self.sandbox)?;
        if self.sandbox.no_new_privileges {
            named("no_new_privileges", sys::set_no_new_privileges())?;
        }
        if self.files.is_some() || !self.filters.is_empty() {
            named("no_new_privileges", permit_restrictions())?;
        }
        if let Some(files) = self.files {
            files::apply(files)?;
        }
        for filter in &self.filters {
            named(FILTER, sys::apply_filter(filter))?;
        }
        Ok(())
    }
}

const FILTER: &str = "system_call_filter";

/// Without this capability the kernel takes rulesets and filters only from a process that cannot get
/// more privileges.
fn permit_restrictions() -> io::Result<()> {
    if sys::is_capable(sys::SYS_ADMIN)? {
        return Ok(());
    }
    sys::set_no_new_privileges()
}

/// The result of applying a setting.
pub fn named<T>(setting: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure {
        setting: Some(setting.to_owned()),
        reason: describe_error(&error),
    })
}

fn cpus(numbers: &[usize]) -> io::Result<Option<CpuSet>> {
    let mut set = CpuSet::new();
    numbers.iter().try_for_each(|number| set.set(*number))?;
    Ok((!numbers.is_empty()).then_some(set))
}

fn set_cpus(cpus: &CpuSet) -> io::Result<()> {
    Ok(sched_setaffinity(Pid::from_raw(0), cpus)?)
}

fn set_io_priority(priority: IoPriority) -> io::Result<()> {
    // The numbers of the classes are those of linux/ioprio.h.
    let (class, level) = match priority {
        IoPriority::Realtime(level) => (1, level),
        IoPriority::BestEffort(level) => (2, level),
        IoPriority::Idle => (3, 0),
    };
    sys::set_io_priority(class, level.into())
}

fn set_limit(
    limit: Limit,
    Bounds { mut soft, mut hard }: Bounds,
    is_ceiling: bool,
) -> io::Result<()> {
    let resource = match limit {
        Limit::As => Resource::RLIMIT_AS,
        Limit::Core => Resource::RLIMIT_CORE,
        Limit::Cpu => Resource::RLIMIT_CPU,
        Limit::Data => Resource::RLIMIT_DATA,
        Limit::Fsize => Resource::RLIMIT_FSIZE,
        Limit::Memlock => Resource::RLIMIT_MEMLOCK,
        Limit::Nofile => Resource::RLIMIT_NOFILE,
        Limit::Nproc => Resource::RLIMIT_NPROC,
        Limit::Stack => Resource::RLIMIT_STACK,
    };
    if is_ceiling {
        let (_, present) = getrlimit(resource)?;
        (soft, hard) = (soft.min(present), hard.min(present));
    }
    Ok(setrlimit(resource, soft, hard)?)
}
