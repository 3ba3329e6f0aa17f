//! The page's data: the status document, and new samples of the history.

use hyper::body::Bytes;
use serde_derive::Serialize;

use crate::history::History;
use crate::shared::Shared;
use crate::watch::{INTERVAL, MasterData};

/// A page that lacks as many samples, or fewer, gets these alone; any other page gets all samples.
const RECENT: usize = 16;

/// The beginning of an answer, which is made for each client.
#[derive(Serialize)]
struct Head {
    /// Why there is no current document.
    problem: Option<String>,
    /// The age of the document, in seconds.
    age: Option<f64>,
    /// The interval between documents, in seconds.
    interval: f64,
}

/// The samples as JSON. They are written once for all pages that lack the same samples, when the
/// first of them asks.
#[derive(Debug, Default)]
pub struct Views {
    all: Option<Bytes>,
    /// By the number of samples that the page lacks.
    recent: [Option<Bytes>; RECENT + 1],
}

impl Views {
    /// The samples for a page that has the first `known` ones.
    fn samples(&mut self, known: u64, history: &History) -> serde_json::Result<Bytes> {
        let lacking = history.taken().checked_sub(known);
        let lacking = lacking.and_then(|lacking| usize::try_from(lacking).ok());
        let (place, known) = match lacking.and_then(|lacking| self.recent.get_mut(lacking)) {
            Some(place) => (place, known),
            None => (&mut self.all, 0),
        };
        if let Some(text) = place {
            return Ok(text.clone());
        }
        let text = Bytes::from(serde_json::to_vec(&history.since(known))?);
        Ok(place.insert(text).clone())
    }
}

/// JSON for the page, without the first `known_to_reader` samples, which the page already has.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn view(known_to_reader: u64, known: &mut MasterData) -> serde_json::Result<Shared> {
    let mut head = serde_json::to_vec(&Head {
        problem: known.current().err(),
        age: known.last().map(|(_, age)| age.as_secs_f64()),
        interval: INTERVAL.as_secs_f64(),
    })?;
    head.pop();
    head.extend(b",\"history\":");
    let samples = known.views.samples(known_to_reader, &known.history)?;
    // The document is inserted as the master sent it, including fields that this version does not
    // know.
    let document = known.last().map(|(answer, _)| answer.text.clone());
    Ok(Shared::new([
        head.into(),
        samples,
        Bytes::from_static(b",\"document\":"),
        document.unwrap_or(Bytes::from_static(b"null")),
        Bytes::from_static(b"}"),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::calm;
    use crate::watch::testing::master_data;
    use http_body_util::BodyExt;
    use serde_json::Value;
    use tokio::runtime::Builder;

    fn viewed(since: u64, known: &mut MasterData) -> Value {
        let view = view(since, known).expect("JSON");
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let text = runtime.block_on(view.collect()).expect("no error");
        serde_json::from_slice(&text.to_bytes()).expect("JSON")
    }

    #[test]
    fn the_page_gets_the_document_as_it_is() {
        let shown = viewed(0, &mut master_data([Ok(calm())]));
        let document = serde_json::to_value(calm()).expect("JSON");
        assert_eq!(shown["document"], document);
        assert_eq!(shown["problem"], Value::Null);
        assert_eq!(shown["history"]["taken"], 1);
    }

    #[test]
    fn without_an_answer_the_page_gets_the_last_one_and_the_problem() {
        let shown = viewed(0, &mut master_data([Ok(calm()), Err("gone".into())]));
        assert_eq!(shown["problem"], "gone");
        assert!(shown["document"]["services"].is_array());
        assert!(shown["age"].is_number());
        let nothing = viewed(0, &mut master_data([]));
        assert_eq!(nothing["document"], Value::Null);
        assert_eq!(nothing["age"], Value::Null);
    }

    #[test]
    fn pages_share_what_they_lack_until_the_next_sample() {
        let mut known = master_data((0..100).map(|_| Ok(calm())));
        let mut samples = |since| {
            let samples = known.views.samples(since, &known.history);
            samples.expect("JSON").as_ptr()
        };
        let all = samples(0);
        assert_eq!(samples(0), all);
        for old in [1, 50, 83, 101, u64::MAX] {
            assert_eq!(samples(old), all, "{old}");
        }
        assert_eq!(samples(98), samples(98));
        assert_ne!(samples(98), all);
        let since =
            |known: &mut MasterData, since| viewed(since, known)["history"]["since"].clone();
        assert_eq!(since(&mut known, 84), 84);
        assert_eq!(since(&mut known, 83), 0);
        known.learn_for_test(Ok(calm()));
        assert_eq!(viewed(100, &mut known)["history"]["taken"], 101);
        assert_eq!(viewed(0, &mut known)["history"]["taken"], 101);
    }
}
