use super::*;
use crate::testing::document;
use master::status::Service;

const TABLE: &str = "busy unix - - - - 100 busyd\nquiet unix - - - - 50 quietd\n";

/// A document two seconds after the last one.
fn later(document: &mut Document) {
    document.time += 2.0;
}

fn started(table: &str) -> Document {
    let mut document = document(table);
    document.time = document.started;
    document
}

/// A day of a document that `change` makes another one every two seconds.
fn day_of(document: &mut Document, seconds: u32, change: impl Fn(&mut [Service])) -> Day {
    let mut day = Day::default();
    day.take(document);
    for _ in 0..seconds / 2 {
        later(document);
        change(&mut document.services);
        day.take(document);
    }
    day
}

fn advised(document: &Document, day: Option<&Day>) -> Vec<ServiceReport> {
    let source = Source::Start {
        seconds: 0.0,
        reason: String::new(),
    };
    report(document, day, source).services
}

/// 20 clients a second of 5 s each need a hundred children.
fn full(services: &mut [Service]) {
    let busy = &mut services[0];
    busy.busy = 100;
    busy.backlog = Some(37);
    busy.connections += 40;
    busy.limit_reached = 1;
    busy.peak = 100;
}

#[test]
fn a_limit_that_was_too_small_is_raised_until_no_client_would_have_waited() {
    let mut document = started(TABLE);
    let day = day_of(&mut document, 720, full);
    let services = advised(&document, Some(&day));
    let [advice] = &services[0].advice[..] else {
        panic!("{services:#?}");
    };
    assert_eq!(advice.setting, "maxproc");
    assert_eq!(advice.value.as_deref(), Some("100"));
    let proposal: u32 = advice.proposal.as_ref().unwrap().parse().unwrap();
    assert!((110..=200).contains(&proposal), "{advice:?}");
    assert!(
        advice
            .reason
            .contains("at its limit for 12 min, and up to 37 clients waited at a time"),
        "{advice:?}"
    );
    let simulated = advice.simulated.as_deref().unwrap();
    let expected = format!("with maxproc {proposal}: no client would have waited more than 0.1 s");
    assert!(simulated.contains(&expected), "{simulated}");
    // The other has too little data, and says how much.
    assert_eq!(services[1].advice, []);
    assert_eq!(
        services[1].missing.as_deref(),
        Some("12 min of 24 h were seen")
    );
}

#[test]
fn a_moment_at_the_limit_is_no_reason() {
    let mut document = started(TABLE);
    let mut day = day_of(&mut document, 50, full);
    document.services[0].busy = 3;
    document.services[0].backlog = Some(0);
    later(&mut document);
    day.take(&document);
    assert_eq!(advised(&document, Some(&day))[0].advice, []);
}

#[test]
fn without_a_history_only_what_is_so_now_is_a_reason() {
    let mut document = document(TABLE);
    full(&mut document.services);
    let advice = &advised(&document, None)[0].advice[0];
    assert_eq!(advice.proposal.as_deref(), Some("150"));
    assert!(
        advice
            .reason
            .contains("100 of 100 children are busy, and 37 clients wait now")
    );
    assert!(
        advice
            .simulated
            .as_deref()
            .unwrap()
            .contains("simulate --from busy/unix")
    );
    document.services[0].backlog = Some(0);
    assert_eq!(advised(&document, None)[0].advice, []);
}

#[test]
fn a_limit_that_was_never_needed_is_lowered_after_a_day() {
    let mut document = started(TABLE);
    let quiet = |services: &mut [Service]| {
        services[0].busy = 3;
        services[0].connections += 1;
    };
    let mut day = day_of(&mut document, 43_200, quiet);
    assert_eq!(advised(&document, Some(&day))[0].advice, [], "half a day");
    for _ in 0..21_600 {
        later(&mut document);
        quiet(&mut document.services);
        day.take(&document);
    }
    let services = advised(&document, Some(&day));
    let advice = &services[0].advice[0];
    assert_eq!(advice.proposal.as_deref(), Some("10"));
    assert!(
        advice
            .reason
            .contains("at most 3 of 100 children were busy"),
        "{advice:?}"
    );
    // The other had no client: nothing is known of what it needs.
    assert_eq!(services[1].advice, []);
}

#[test]
fn a_service_with_one_process_is_one_on_purpose() {
    let mut document = document("qmgr unix n - n 300 1 qmgr\n");
    let only = &mut document.services[0];
    (only.busy, only.peak, only.backlog) = (1, 1, Some(5));
    assert_eq!(advised(&document, None)[0].advice, []);
}

#[test]
fn failures_and_stalls_are_the_programs_own() {
    let mut document = document(TABLE);
    document.services[0].throttled_until = Some(document.time + 30.0);
    document.services[0].failed = 7;
    document.services[1].stalled = true;
    let services = advised(&document, None);
    assert!(
        services[0].advice[0]
            .reason
            .contains("7 children have failed")
    );
    assert!(services[1].advice[0].reason.contains("does not report"));
    assert!(
        services
            .iter()
            .all(|s| s.advice[0].setting == "the program")
    );
}

#[test]
fn children_that_leave_soon_are_noticed() {
    let mut document = document(TABLE);
    let service = &mut document.services[0];
    (service.started, service.connections) = (10_000, 10_000);
    let advice = &advised(&document, None)[0].advice[0];
    assert_eq!(advice.setting, "the program's max_use and max_idle");
    assert!(
        advice
            .reason
            .contains("60 starts a minute: a child serves 1.0 clients")
    );
    let service = &mut document.services[0];
    service.settings.insert("max_uses".into(), "1".into());
    let advice = &advised(&document, None)[0].advice[0];
    assert_eq!(
        (&*advice.setting, advice.proposal.as_deref()),
        ("max_uses", Some("10"))
    );
    // In a pool, they leave for being idle.
    let service = &mut document.services[0];
    service.settings = [("max_idle".to_owned(), "2".to_owned())].into();
    service.peak = 9;
    let advice = &advised(&document, None)[0].advice[0];
    assert_eq!(
        (&*advice.setting, advice.proposal.as_deref()),
        ("max_idle", Some("9"))
    );
}

#[test]
fn a_group_that_nearly_uses_its_memory_gets_more() {
    let mut document = document(TABLE);
    let service = &mut document.services[0];
    let limit: u64 = 1 << 30;
    service
        .settings
        .insert("memory_max".into(), limit.to_string());
    service.memory = Some(limit / 2);
    assert_eq!(advised(&document, None)[0].advice, []);
    document.services[0].memory = Some(limit / 100 * 95);
    let advice = &advised(&document, None)[0].advice[0];
    assert_eq!(advice.proposal.as_deref(), Some("1536 M"));
}

#[test]
fn a_history_is_used_while_statusd_continues_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("statusd.history");
    let mut document = started(TABLE);
    let settings = &mut document.settings;
    let data = directory.path().display().to_string();
    settings.insert("data_directory".into(), data);
    let is_start =
        |document: &Document| matches!(source(document, None).unwrap().1, Source::Start { .. });
    assert!(is_start(&document), "there is none");
    assert!(
        source(&document, Some(&path)).is_err(),
        "a named one must be there"
    );
    let day = day_of(&mut document, 600, full);
    std::fs::write(&path, serde_json::json!({ "day": day }).to_string()).unwrap();
    let (read, from) = source(&document, None).unwrap();
    assert_eq!(read, Some(day));
    assert!(matches!(from, Source::History { .. }));
    document.time += 1000.0;
    assert!(is_start(&document), "it is old");
    std::fs::write(&path, "{\"time\": 1, \"history\"").unwrap();
    assert!(is_start(&document), "it is broken");
    // One of a statusd that has left no day.
    std::fs::write(&path, "{\"time\": 1}").unwrap();
    assert!(is_start(&document));
    let mut named = self::document("s unix - - - - 1 /x/statusd -o statusd_history_file=/y\n");
    named.settings.clear();
    assert_eq!(usual_path(&named), Path::new("/y"));
}

#[test]
fn the_answer_names_its_source_what_to_change_and_what_is_missing() {
    let mut document = document(TABLE);
    full(&mut document.services);
    let reason = "/data/statusd.history: statusd has left no history there".to_owned();
    let seconds = 10_000.0;
    let mut text = Vec::new();
    let report = report(&document, None, Source::Start { seconds, reason });
    show(&report, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.starts_with("by the counters since the master's start 2 h 46 min ago (/data"),
        "{text}"
    );
    assert!(
        text.contains("busy/unix\n  maxproc: 100 -> 150\n    100 of 100"),
        "{text}"
    );
    assert!(
        text.ends_with("too little is known of:\n  quiet/unix: 2 h 46 min of 24 h were seen\n"),
        "{text}"
    );
    let json = serde_json::to_string(&report).unwrap();
    assert!(
        json.contains("\"setting\":\"maxproc\",\"value\":\"100\",\"proposal\":\"150\""),
        "{json}"
    );
}

/// The sums of the first service.
fn sums(day: &Day) -> (f64, f64, u64) {
    let periods = &day.services[0].periods;
    (
        periods.iter().map(|p| p.seconds).sum(),
        periods.iter().map(|p| p.full).sum(),
        periods.iter().map(|p| p.clients).sum(),
    )
}

#[test]
fn a_day_counts_what_it_has_seen() {
    let mut document = started(TABLE);
    let mut day = day_of(&mut document, 100, full);
    assert_eq!(sums(&day), (100.0, 100.0, 2000));
    // statusd was away: the time is not known, but the counters went on.
    document.time += 600.0;
    document.services[0].connections += 5;
    day.take(&document);
    assert_eq!(sums(&day), (100.0, 100.0, 2005));
    // Another master counts from 0.
    document.started = document.time;
    document.services[0].connections = 3;
    later(&mut document);
    day.take(&document);
    assert_eq!(sums(&day), (102.0, 102.0, 2008));
}

#[test]
fn a_day_has_24_hours_and_no_future() {
    let mut document = started(TABLE);
    let mut day = day_of(&mut document, 400, full);
    let begin = document.time;
    document.time += 86_400.0 + 300.0;
    day.take(&document);
    assert_eq!(day.services[0].periods.len(), 1, "older ones are gone");
    document.time = begin;
    day.take(&document);
    let periods = &day.services[0].periods;
    assert_eq!(periods.len(), 1, "the clock was set back");
    assert_eq!(periods[0].number, (begin / 300.0) as u64);
}

#[test]
fn a_peak_between_two_documents_counts() {
    let mut document = started(TABLE);
    let mut day = day_of(&mut document, 10, |_| {});
    later(&mut document);
    document.services[0].peak = 42;
    document.services[0].peak_time = Some(document.time - 1.0);
    day.take(&document);
    assert_eq!(day.services[0].periods[0].peak, 42);
}

#[test]
fn a_large_table_does_not_fill_the_memory() {
    let table: String = (0..250)
        .map(|n| format!("s{n} unix - - - - 5 true\n"))
        .collect();
    let mut day = Day::default();
    let mut document = started(&table);
    day.take(&document);
    later(&mut document);
    day.take(&document);
    assert_eq!(day.services.len(), 200);
}

/// The file belongs to statusd's user.
#[test]
fn no_number_in_a_history_is_more_than_a_number() {
    let document = document(TABLE);
    for number in ["0", "-1", "1e308", "18446744073709551615", "4294967295"] {
        let of = |name| {
            let integer = !["seconds", "full", "stalled", "throttled", "busy"].contains(&name);
            let is_odd = integer && (number.contains('e') || number.contains('-'));
            let is_long = ["peak", "waiting"].contains(&name) && number.len() > 10;
            let number = if is_odd || is_long { "7" } else { number };
            format!("\"{name}\": {number}")
        };
        let fields = [
            "number",
            "seconds",
            "full",
            "stalled",
            "throttled",
            "busy",
            "peak",
            "waiting",
            "clients",
            "starts",
            "failures",
            "memory",
        ]
        .map(of)
        .join(", ");
        let day = format!(
            "{{\"services\": [{{\"endpoint\": \"private/busy\", \"type\": \"unix\", \
             \"periods\": [{{{fields}}}, {{{fields}}}]}}]}}"
        );
        let day: Day = serde_json::from_str(&day).expect("a day");
        let mut text = Vec::new();
        let seconds = 1.0;
        let reason = String::new();
        let report = report(&document, Some(&day), Source::Start { seconds, reason });
        show(&report, &mut text).unwrap();
    }
}
