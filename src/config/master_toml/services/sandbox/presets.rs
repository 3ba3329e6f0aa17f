//! Presets: settings that a service gets together. `presets.toml` has them; this is how they are found
//! and applied. What the service's own table sets takes the place of what the preset sets.

use std::path::Path;
use std::sync::LazyLock;

use super::{Mistake, ServiceTable, Setting, System, Value};
use crate::config::master_toml::tables_beneath;
use crate::config::{Diagnostic, Service};
use crate::sandbox::Sandbox;

const TEXT: &str = include_str!("presets.toml");

/// The presets for any service, by their names.
static GENERAL: LazyLock<Vec<ServiceTable>> = LazyLock::new(|| tables_beneath("general", TEXT));
/// Those of the preset "postfix", by the names of Postfix's programs.
static POSTFIX: LazyLock<Vec<ServiceTable>> = LazyLock::new(|| tables_beneath("postfix", TEXT));

/// Names the table of the same group whose settings come first.
const LIKE: &str = "like";

/// The words of the setting `sandbox`.
#[derive(Debug, Default)]
pub(super) struct Words {
    preset: Option<&'static str>,
    pub(super) is_required: bool,
}

const EXPECTED: &str = "\"postfix\", \"network-service\" or \"none\", and \"possible\" or \
                        \"required\", one of them or two in a list";

pub(super) fn words(setting: &Setting) -> Result<Words, Mistake> {
    let mut words = Words::default();
    let one = [(setting.value.clone(), setting.value_place.clone())];
    let items = match &setting.value {
        Value::List(items) if (1..=2).contains(&items.len()) => items,
        Value::Text(_) => &one[..],
        _ => return Err(EXPECTED.into()),
    };
    let (mut presets, mut levels) = (0, 0);
    for (item, place) in items {
        let word = match item {
            Value::Text(word) => PRESETS.iter().chain(&LEVELS).find(|known| *known == word),
            _ => None,
        };
        let word = word.ok_or_else(|| Mistake {
            place: Some(place.clone()),
            expected: EXPECTED.into(),
        })?;
        if PRESETS.contains(word) {
            presets += 1;
            words.preset = Some(word);
        } else {
            levels += 1;
            words.is_required = *word == "required";
        }
    }
    if presets > 1 || levels > 1 {
        return Err(EXPECTED.into());
    }
    Ok(words)
}

const PRESETS: [&str; 3] = ["postfix", "network-service", "none"];
const LEVELS: [&str; 2] = ["possible", "required"];

/// Applies the preset that a service's table names, if it names one.
///
/// # Errors
/// The preset has nothing for this service's program.
pub(in crate::config::master_toml::services) fn apply(
    table: &ServiceTable,
    service: &Service,
    sandbox: &mut Sandbox,
    system: System<'_>,
) -> Result<(), Diagnostic> {
    let setting = table.settings.iter().find(|s| s.key == "sandbox");
    // A word that is none is told where the setting itself is read.
    let words = setting.and_then(|setting| Some((setting, words(setting).ok()?.preset?)));
    // Without parameters there are no directories, and an error has been found already.
    let Some((setting, preset)) = words.filter(|_| system.parameters.is_some()) else {
        return Ok(());
    };
    let (group, name) = match preset {
        "postfix" => {
            let program = Path::new(&service.command).file_name();
            (&*POSTFIX, program.and_then(|name| name.to_str()))
        }
        "none" => return Ok(()),
        _ => (&*GENERAL, Some(preset)),
    };
    let named = name.and_then(|name| find(group, name));
    let Some(named) = named.filter(|named| is_program(named)) else {
        let known = group.iter().filter(|table| is_program(table));
        let known: Vec<_> = known.map(|table| &*table.name).collect();
        let message = format!(
            "preset \"{preset}\" does not know the program {}: expected one of {}, or another preset",
            service.command,
            known.join(", ")
        );
        return Err(Diagnostic::error(setting.value_place.clone(), message));
    };
    let explain = |error: Diagnostic| {
        let message = format!("preset \"{preset}\": {}", error.message);
        Diagnostic::error(setting.value_place.clone(), message)
    };
    apply_all(group, named, sandbox, system).map_err(explain)?;
    // A preset gives no service more than the master has.
    sandbox.ceilings = sandbox.limits.keys().copied().collect();
    Ok(())
}

fn find<'a>(group: &'a [ServiceTable], name: &str) -> Option<&'a ServiceTable> {
    group.iter().find(|table| table.name == name)
}

/// Other tables are there to be named by `like`, and begin with an underscore.
fn is_program(table: &ServiceTable) -> bool {
    !table.name.starts_with('_')
}

/// Applies a table after the one that it is like.
fn apply_all(
    group: &[ServiceTable],
    table: &ServiceTable,
    sandbox: &mut Sandbox,
    system: System<'_>,
) -> Result<(), Diagnostic> {
    let like = table
        .settings
        .iter()
        .find_map(|setting| match &setting.value {
            Value::Text(name) if setting.key == LIKE => find(group, name),
            _ => None,
        });
    if let Some(like) = like {
        // A test shows that no table is like itself.
        apply_all(group, like, sandbox, system)?;
    }
    for setting in &table.settings {
        // A master without root has no capabilities that could be taken from its children.
        let is_without_effect =
            setting.key == "capability_bounding_set" && system.is_without_root();
        if setting.key == LIKE || is_without_effect {
            continue;
        }
        if let Some(set) = super::find(&setting.key) {
            set(sandbox, setting, system).map_err(|mistake| setting.error(mistake))?;
        }
    }
    Ok(())
}
