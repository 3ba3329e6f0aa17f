//! The page's data: the status document, and new samples of the history.

use serde_derive::Serialize;

use crate::history::Samples;
use crate::watch::{INTERVAL, MasterData};

#[derive(Serialize)]
struct Frame {
    /// Why there is no current document.
    problem: Option<String>,
    /// The age of the document, in seconds.
    age: Option<f64>,
    /// The interval between documents, in seconds.
    interval: f64,
    history: Samples,
}

/// JSON for the page, without the first `known_to_reader` samples, which the page already has.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn view(known_to_reader: u64, known: &MasterData) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(&Frame {
        problem: known.current().err(),
        age: known.last().map(|(_, age)| age.as_secs_f64()),
        interval: INTERVAL.as_secs_f64(),
        history: known.history.since(known_to_reader),
    })?;
    // The document is inserted as the master sent it, including fields that this version does not
    // know.
    text.pop();
    text.extend(b",\"document\":");
    match known.last() {
        Some((answer, _)) => text.extend_from_slice(&answer.text),
        None => text.extend(b"null"),
    }
    text.push(b'}');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::calm;
    use crate::watch::testing::master_data;
    use serde_json::Value;

    fn viewed(known: &MasterData) -> Value {
        serde_json::from_slice(&view(0, known).expect("JSON")).expect("JSON")
    }

    #[test]
    fn the_page_gets_the_document_as_it_is() {
        let shown = viewed(&master_data([Ok(calm())]));
        let document = serde_json::to_value(calm()).expect("JSON");
        assert_eq!(shown["document"], document);
        assert_eq!(shown["problem"], Value::Null);
        assert_eq!(shown["history"]["taken"], 1);
    }

    #[test]
    fn without_an_answer_the_page_gets_the_last_one_and_the_problem() {
        let shown = viewed(&master_data([Ok(calm()), Err("gone".into())]));
        assert_eq!(shown["problem"], "gone");
        assert!(shown["document"]["services"].is_array());
        assert!(shown["age"].is_number());
        let nothing = viewed(&master_data([]));
        assert_eq!(nothing["document"], Value::Null);
        assert_eq!(nothing["age"], Value::Null);
    }
}
