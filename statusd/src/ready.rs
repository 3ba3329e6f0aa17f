//! The readiness check, for load balancers and monitoring.

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
    if let Some(reload) = &document.last_reload {
        if rules.failed_reload && !reload.succeeded {
            problems.push("the last reload failed".into());
            problems.extend(reload.findings.iter().map(|line| format!("  {line}")));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{calm, failed_reload, throttled};
    use crate::watch::testing::master_data;

    const STRICT: Rules = Rules {
        throttled: true,
        stalled: true,
        failed_reload: true,
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
        };
        let known = master_data([Ok(calm()), Err("gone".into())]);
        let told = problems(&known, mild);
        assert_eq!(told, ["the master does not answer: gone"]);
    }
}
