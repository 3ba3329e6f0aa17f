//! What is looked for in the document itself, field by field: what this program does not know, and
//! points in time with which it could not calculate.

use serde_json::Value;

use super::{State, Unfit};

/// More seconds than any point in time can have: what is added to one must not overflow.
const SECONDS_MAX: u64 = 1 << 40;

impl State {
    /// The fields that this program does not know of the document from which the state was decoded, by
    /// their places in it. A program that begins with the state of a later one says so.
    ///
    /// # Errors
    /// The text is no document, or a point in time is beyond all measure.
    pub fn unknown_fields(&self, text: &[u8]) -> Result<Vec<String>, Unfit> {
        let given = in_time(text)?;
        let known = serde_json::to_value(self).map_err(|e| Unfit(e.to_string()))?;
        let mut unknown = Vec::new();
        compare(&given, &known, &mut String::new(), &mut unknown);
        unknown.sort_unstable();
        unknown.dedup();
        Ok(unknown)
    }
}

/// Looks for fields of objects that are only in `given`.
fn compare(given: &Value, known: &Value, place: &mut String, unknown: &mut Vec<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            for (name, value) in given {
                let length = place.len();
                place.push_str(if length == 0 { "" } else { "." });
                place.push_str(name);
                match known.get(name) {
                    Some(known) => compare(value, known, place, unknown),
                    None => unknown.push(place.clone()),
                }
                place.truncate(length);
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            let pairs = given.iter().zip(known);
            pairs.for_each(|(given, known)| compare(given, known, place, unknown));
        }
        _ => {}
    }
}

/// Refuses a document with points in time with which the policy could not calculate.
///
/// # Errors
/// There is one; or the text is no document.
pub fn check_clocks(text: &[u8]) -> Result<(), Unfit> {
    in_time(text).map(drop)
}

fn in_time(text: &[u8]) -> Result<Value, Unfit> {
    let given = serde_json::from_slice(text).map_err(|e| Unfit(e.to_string()))?;
    check_times(&given)?;
    Ok(given)
}

fn check_times(value: &Value) -> Result<(), Unfit> {
    match value {
        Value::Object(fields) => {
            let seconds = fields.get("secs").and_then(Value::as_u64);
            if seconds.is_some_and(|seconds| seconds > SECONDS_MAX) {
                return Err(Unfit("a point in time is out of range".to_owned()));
            }
            fields.values().try_for_each(check_times)
        }
        Value::Array(values) => values.iter().try_for_each(check_times),
        _ => Ok(()),
    }
}
