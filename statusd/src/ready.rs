//! The readiness check, for load balancers and monitoring.

use master::status::Service;

use crate::watch::MasterData;

/// The conditions that count as not ready.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A service is throttled.
    pub throttled: bool,
    /// Clients of a service wait although processes count as available.
    pub stalled: bool,
    /// The last reload failed, so the files differ from the active configuration.
    pub failed_reload: bool,
    /// So many percent of the processes of a service that may have more than one are busy; 0: never.
    pub busy_percent: u32,
}

/// The problems, one line for each; empty if the master is ready.
pub fn problems(known: &MasterData, rules: Rules) -> Vec<String> {
    let document = match known.current() {
        Ok(answer) => &answer.document,
        Err(why) => return vec![format!("the master does not answer: {why}")],
    };
    let throttled = document
        .services
        .iter()
        .filter(|service| rules.throttled && service.throttled_until.is_some());
    let mut problems: Vec<String> = throttled
        .map(|service| format!("{}/{} is throttled", service.name, service.kind))
        .collect();
    let services = document.services.iter();
    let stalled = services.filter(|service| rules.stalled && service.stalled);
    problems.extend(stalled.map(|service| {
        let (name, kind) = (&service.name, &service.kind);
        format!("{name}/{kind} is stalled: clients wait although processes count as available")
    }));
    let crowded = document
        .services
        .iter()
        .filter(|service| is_busy(service, rules.busy_percent));
    problems.extend(crowded.map(|service| {
        let (name, kind) = (&service.name, &service.kind);
        let (busy, maximum) = (service.busy, service.maximum);
        format!("{name}/{kind} has {busy} of {maximum} processes busy")
    }));
    if let Some(reload) = &document.last_reload {
        if rules.failed_reload && !reload.succeeded {
            problems.push("the last reload failed".into());
            problems.extend(reload.findings.iter().map(|line| format!("  {line}")));
        }
    }
    problems
}

/// Whether a service is nearly at its limit. One that may have a single process is there with each client.
fn is_busy(service: &Service, percent: u32) -> bool {
    let busy = u64::from(service.busy) * 100;
    percent > 0 && service.maximum > 1 && busy >= u64::from(service.maximum) * u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{calm, failed_reload, service, throttled};
    use crate::watch::testing::master_data;

    const STRICT: Rules = Rules {
        throttled: true,
        stalled: true,
        failed_reload: true,
        busy_percent: 0,
    };

    #[test]
    fn a_calm_master_is_ready() {
        let known = master_data([Ok(calm())]);
        assert_eq!(problems(&known, STRICT), [""; 0]);
    }

    #[test]
    fn a_throttled_service_is_named_unless_nobody_minds() {
        let known = master_data([Ok(throttled())]);
        assert_eq!(problems(&known, STRICT), ["policyd/unix is throttled"]);
        let mild = Rules {
            throttled: false,
            ..STRICT
        };
        assert_eq!(problems(&known, mild), [""; 0]);
    }

    #[test]
    fn a_stalled_service_is_named_unless_nobody_minds() {
        let mut document = calm();
        document.services[0].stalled = true;
        let name = format!(
            "{}/{}",
            document.services[0].name, document.services[0].kind
        );
        let known = master_data([Ok(document)]);
        let expected =
            format!("{name} is stalled: clients wait although processes count as available");
        assert_eq!(problems(&known, STRICT), [expected]);
        let mild = Rules {
            stalled: false,
            ..STRICT
        };
        assert_eq!(problems(&known, mild), [""; 0]);
    }

    #[test]
    fn a_failed_reload_is_told_with_its_findings_unless_nobody_minds() {
        let known = master_data([Ok(failed_reload())]);
        let told = problems(&known, STRICT);
        assert_eq!(told[0], "the last reload failed");
        assert!(told[1].contains("master.cf: line 138"), "{told:?}");
        let mild = Rules {
            failed_reload: false,
            ..STRICT
        };
        assert_eq!(problems(&known, mild), [""; 0]);
    }

    #[test]
    fn a_master_that_does_not_answer_is_not_ready_whatever_the_rules_are() {
        let mild = Rules {
            throttled: false,
            stalled: false,
            failed_reload: false,
            busy_percent: 0,
        };
        let known = master_data([Ok(calm()), Err("gone".into())]);
        let told = problems(&known, mild);
        assert_eq!(told, ["the master does not answer: gone"]);
    }

    #[test]
    fn a_service_is_unready_before_its_limit_if_that_is_wanted() {
        let told = |busy, maximum, busy_percent| {
            let mut document = calm();
            document.services = vec![service(1, "smtp", 0, 0, maximum)];
            document.services[0].busy = busy;
            let rules = Rules {
                busy_percent,
                ..STRICT
            };
            problems(&master_data([Ok(document)]), rules)
        };
        assert_eq!(told(79, 100, 80), [""; 0]);
        let [line] = &told(80, 100, 80)[..] else {
            panic!("expected one problem");
        };
        assert!(line.ends_with(" has 80 of 100 processes busy"), "{line}");
        // More than the limit are there after a reload that lowers it.
        assert_eq!(told(110, 100, 100).len(), 1);
        // Switched off; no limit; each client is at a limit of one.
        for (busy, maximum, percent) in [(100, 100, 0), (1000, 0, 80), (1, 1, 80)] {
            assert_eq!(told(busy, maximum, percent), [""; 0]);
        }
        assert_eq!(told(u32::MAX, u32::MAX, 100).len(), 1);
    }
}
