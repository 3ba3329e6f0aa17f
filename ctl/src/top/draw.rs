//! Renders the state in the given width.

use master::status::{Document, Service};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Widget};

use super::state::{FRAME, State, Trouble, title, trouble, troubles, words};

/// Eighths of a line's height, for the curve of busy children.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A column of numbers: its title, the minimum screen width at which it is shown, and its number.
type Column = (&'static str, u16, fn(&Service) -> String);

const COLUMNS: [Column; 5] = [
    ("BUSY", 0, |s| s.busy.to_string()),
    ("IDLE", 50, |s| s.available.to_string()),
    ("LIMIT", 0, |s| match s.maximum {
        0 => "none".to_owned(),
        limit => limit.to_string(),
    }),
    ("WAIT", 60, |s| {
        s.backlog
            .map_or("?".to_owned(), |waiting| waiting.to_string())
    }),
    ("CLIENTS", 70, |s| s.connections.to_string()),
];
const STATE: u16 = 10;
const CURVE: &str = "LAST SECONDS";

const HELP: [&str; 9] = [
    "s            another order",
    "/            filter by name, address or state",
    "Enter, Esc   keep the filter, or take it back",
    "Up, Down     scroll; also j, k, Page, Home, End",
    "q            leave",
    "",
    "BUSY children have a client, IDLE ones wait for one.",
    "WAIT: clients in the queue of the listener.",
    "The curve is BUSY, a character a second.",
];

/// Renders the whole screen.
pub fn draw(state: &mut State, area: Rect, picture: &mut Buffer) {
    state.settle(area.height.saturating_sub(FRAME).into());
    let [above, below] = Layout::vertical([Constraint::Fill(1), Constraint::Length(1)]).areas(area);
    services(state, above, picture);
    keys(state).render(below, picture);
    if state.shows_help {
        help(area, picture);
    }
}

/// Renders the master's state, and below it the services.
pub fn services(state: &State, area: Rect, picture: &mut Buffer) {
    let [first, second, titles, rows] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    if let Some(document) = &state.document {
        about(document).render(first, picture);
    }
    news(state).render(second, picture);
    let width = name_width(area.width);
    headings(area.width, width).render(titles, picture);
    let chosen = state.chosen();
    let shown = chosen.into_iter().skip(state.first);
    for (y, service) in (rows.y..rows.bottom()).zip(shown) {
        let line = Rect::new(rows.x, y, rows.width, 1);
        row(state, service, width, rows.width).render(line, picture);
    }
}

fn about(document: &Document) -> Line<'_> {
    let up = span(document.time - document.started);
    let upgraded = document.last_upgrade.as_ref().map(|upgrade| {
        let ago = span(document.time - upgrade.time);
        let times = match document.upgrades {
            1 => String::new(),
            n => format!(" ({n} times)"),
        };
        format!("upgraded {ago} ago{times}  ")
    });
    Line::from(vec![
        Span::from(format!("master {} ", document.version)).bold(),
        format!(" pid {}  up {up}  ", document.pid).into(),
        upgraded.unwrap_or_default().into(),
        clean(&document.configuration).into(),
    ])
}

/// The most important event.
fn news(state: &State) -> Line<'static> {
    if let Some(problem) = &state.problem {
        let old = if state.document.is_some() {
            "; this is how it was"
        } else {
            ""
        };
        return Line::from(format!("{}{old}", clean(problem)))
            .fg(Color::Red)
            .bold();
    }
    let Some(document) = &state.document else {
        return Line::from("asking the master");
    };
    let mut parts = vec![counted(document.services.len())];
    for kind in [
        Trouble::Throttled,
        Trouble::Stalled,
        Trouble::Limit,
        Trouble::Stress,
        Trouble::Paused,
        Trouble::Loading,
    ] {
        let has = |service: &&Service| troubles(service).contains(&kind);
        match document.services.iter().filter(has).count() {
            0 => {}
            n => parts.push(format!("{n} {}", words(kind))),
        }
    }
    parts.extend(failed_reload(document));
    match parts.len() {
        1 => Line::from(format!("{}, all well", parts[0])),
        _ => Line::from(parts.join(", ")).fg(Color::Yellow).bold(),
    }
}

/// A message that the last reload failed, with the first reason.
fn failed_reload(document: &Document) -> Option<String> {
    let reload = document.last_reload.as_ref();
    let reload = reload.filter(|reload| !reload.succeeded)?;
    let reason = reload
        .findings
        .first()
        .map_or("no reason is known", String::as_str);
    Some(format!("the last reload failed: {}", clean(reason)))
}

fn counted(services: usize) -> String {
    match services {
        1 => "1 service".to_owned(),
        n => format!("{n} services"),
    }
}

/// The names use a quarter of the line.
fn name_width(width: u16) -> u16 {
    (width / 4).clamp(12, 40)
}

fn columns(width: u16) -> impl Iterator<Item = &'static Column> {
    COLUMNS.iter().filter(move |(_, least, _)| *least <= width)
}

/// The cells of a row (numbers, or their titles), each as wide as its column.
fn cells(width: u16, text: impl Fn(&Column) -> String) -> String {
    let cells = columns(width).map(|column| {
        let width = column.0.len() + 2;
        format!("{:>width$}", text(column))
    });
    cells.collect()
}

fn headings(width: u16, names: u16) -> Line<'static> {
    let left = pad("SERVICE", names) + &pad(" STATE", STATE);
    let mut text = left + &cells(width, |(title, _, _)| (*title).to_owned());
    let all = text.len() + 2 + CURVE.len();
    if all <= width.into() {
        text = text + "  " + CURVE;
    }
    Line::from(pad(&text, width)).add_modifier(Modifier::REVERSED)
}

fn row(state: &State, service: &Service, names: u16, width: u16) -> Line<'static> {
    let trouble = trouble(service);
    let style = match trouble {
        Trouble::None => Style::new(),
        Trouble::Throttled | Trouble::Stalled => {
            Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
        }
        _ => Style::new().fg(Color::Yellow).add_modifier(Modifier::BOLD),
    };
    let left = pad(&title(service), names) + &pad(&format!(" {}", words(trouble)), STATE);
    let numbers = cells(width, |(_, _, number)| number(service)) + "  ";
    let room = usize::from(width).saturating_sub(usize::from(names + STATE) + numbers.len());
    let curve = curve(&state.past(service), service.maximum, room);
    Line::from(vec![
        Span::styled(left, style),
        numbers.into(),
        Span::styled(curve, Style::new().fg(Color::Cyan)),
    ])
}

/// The number of busy children as a curve: one character per sample, the latest at the right. The
/// scale is the process limit if at least half of it was in use, otherwise the maximum, so that
/// small numbers are visible.
fn curve(past: &[u32], limit: u32, width: usize) -> String {
    let shown = &past[past.len().saturating_sub(width)..];
    let most = shown.iter().copied().max().unwrap_or(0);
    let whole = if limit > 0 && most >= limit / 2 {
        limit
    } else {
        most
    };
    let level = |busy: u32| match busy {
        0 => 0,
        // Rounded up: one busy child is visible.
        n => (u64::from(n) * 8).div_ceil(u64::from(whole.max(n))) as usize,
    };
    let before = " ".repeat(width - shown.len());
    let bars = shown.iter().map(|&busy| LEVELS[level(busy)]);
    before.chars().chain(bars).collect()
}

fn keys(state: &State) -> Line<'static> {
    if state.is_typing {
        return Line::from(format!("filter: {}_", clean(&state.filter)));
    }
    let filter = match state.filter.as_str() {
        "" => "filter".to_owned(),
        text => format!("filter: {}", clean(text)),
    };
    Line::from(format!(
        "?:help  q:quit  s:{}  /:{filter}",
        state.order.words()
    ))
    .dim()
}

fn help(area: Rect, picture: &mut Buffer) {
    let width = HELP.iter().map(|line| line.len()).max().unwrap_or(0) as u16 + 4;
    let height = HELP.len() as u16 + 2;
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect::new(
        area.x + (area.width - width) / 2,
        area.y + (area.height - height) / 2,
        width,
        height,
    );
    Clear.render(place, picture);
    let lines: Vec<Line<'_>> = HELP
        .iter()
        .map(|line| Line::from(format!(" {line}")))
        .collect();
    let frame = Block::bordered().title(" Keys ");
    Paragraph::new(lines).block(frame).render(place, picture);
}

/// A duration in at most two units.
fn span(seconds: f64) -> String {
    let s = seconds.max(0.0).round() as u64;
    match s {
        0..100 => format!("{s} s"),
        100..6000 => format!("{} min", s / 60),
        6000..172_800 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// A text in exactly `width` characters. A longer one is cut, with an ellipsis at its end.
fn pad(text: &str, width: u16) -> String {
    let width = usize::from(width);
    let text = clean(text);
    if text.chars().count() <= width {
        return format!("{text:width$}");
    }
    let start = text.chars().take(width.saturating_sub(1));
    start.chain(['…']).collect()
}

/// A text without characters that would shift others, such as control characters.
fn clean(text: &str) -> String {
    let moves = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars()
        .map(|c| if moves(c) { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::{calm, crowd, failed_reload, hostile, stressed, throttled};
    use crate::top::text;
    use master::status::Upgrade;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// The lines of a screen.
    fn screen(state: &mut State, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal
            .draw(|frame| draw(state, frame.area(), frame.buffer_mut()))
            .expect("a picture");
        text(terminal.backend().buffer())
    }

    /// A master some seconds after the beginning of an incident.
    fn incident() -> State {
        let mut state = State::default();
        for busy in (0..=100).step_by(7) {
            let mut document = stressed();
            document.services[0].busy = busy;
            document.services[0].stress_until = None;
            state.update(Ok(document));
        }
        let mut document = stressed();
        document.services[6] = throttled().services[6].clone();
        state.update(Ok(document));
        state
    }

    #[track_caller]
    fn assert_shows(shown: &[String], expected: &str) {
        assert_eq!(
            shown.join("\n").trim_end(),
            expected.trim_matches('\n'),
            "\n{}",
            shown.join("\n")
        );
    }

    #[test]
    fn on_eighty_columns_there_is_all() {
        let shown = screen(&mut incident(), 80, 24);
        assert_eq!(shown.len(), 24);
        assert_shows(
            &shown[..10],
            r"
master 0.1.0  pid 4711  up 3 d 4 h  /etc/postfix
7 services, 1 throttled, 1 full, 1 stress
SERVICE              STATE      BUSY  IDLE  LIMIT  WAIT  CLIENTS  LAST SECONDS
policyd/unix         throttled     0     0     10     0        0
smtp/inet            full        100     0    100    37    13700  ▂▂▃▃▄▄▅▆▆▇▇███
pickup/unix                        0     1      1     0        0
cleanup/unix                      41     3   none     0     5617  ██████████████
qmgr/unix                          0     1      1     0        0
bounce/unix                        0     0   none     0        0
local/unix                        17     2     20     0     2329  ▇▇▇▇▇▇▇▇▇▇▇▇▇▇
",
        );
        assert_eq!(shown[23], "?:help  q:quit  s:trouble first  /:filter");
    }

    #[test]
    fn an_upgrade_is_shown_beside_the_version() {
        let mut document = calm();
        document.upgrades = 1;
        document.last_upgrade = Some(Upgrade {
            time: document.time - 125.0,
            from: "0.0.9".into(),
        });
        let first = |document: &Document| {
            let mut state = State::default();
            state.update(Ok(document.clone()));
            screen(&mut state, 80, 6).swap_remove(0)
        };
        let upgraded = "master 0.1.0  pid 4711  up 3 d 4 h  upgraded 2 min ago";
        assert_eq!(first(&document), format!("{upgraded}  /etc/postfix"));
        document.upgrades = 12;
        assert!(first(&document).starts_with(&format!("{upgraded} (12 times)  /etc")));
    }

    #[test]
    fn on_few_columns_the_most_important_are_left() {
        assert_shows(
            &screen(&mut incident(), 60, 6),
            r"
master 0.1.0  pid 4711  up 3 d 4 h  /etc/postfix
7 services, 1 throttled, 1 full, 1 stress
SERVICE         STATE      BUSY  IDLE  LIMIT  WAIT
policyd/unix    throttled     0     0     10     0
smtp/inet       full        100     0    100    37  ▅▆▆▇▇███
?:help  q:quit  s:trouble first  /:filter
",
        );
        assert_shows(
            &screen(&mut incident(), 40, 6),
            r"
master 0.1.0  pid 4711  up 3 d 4 h  /etc
7 services, 1 throttled, 1 full, 1 stres
SERVICE      STATE      BUSY  LIMIT
policyd/unix throttled     0     10
smtp/inet    full        100    100  ███
?:help  q:quit  s:trouble first  /:filte
",
        );
    }

    #[test]
    fn no_screen_is_too_small() {
        let mut state = incident();
        for width in (0..90).step_by(3) {
            for height in 0..9 {
                state.shows_help = !state.shows_help;
                screen(&mut state, width, height);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_scrolled_to() {
        let mut state = State::knowing(crowd(40));
        state.first = usize::MAX;
        let shown = screen(&mut state, 80, 8);
        assert!(shown[3].starts_with("tenant36/unix"), "{shown:?}");
        assert!(shown[6].starts_with("tenant39/unix"), "{shown:?}");
    }

    #[test]
    fn a_failed_reload_is_told_with_its_first_reason() {
        let shown = screen(&mut State::knowing(failed_reload()), 120, 12);
        let expected =
            "7 services, the last reload failed: error: /etc/postfix/master.cf: line 138:";
        assert!(shown[1].starts_with(expected), "{shown:?}");
        let shown = screen(&mut State::knowing(calm()), 80, 12);
        assert_eq!(shown[1], "7 services, all well");
    }

    #[test]
    fn a_master_that_does_not_answer_is_said_to() {
        let mut state = State::default();
        assert_eq!(screen(&mut state, 80, 5)[1], "asking the master");
        state.update(Err("no master runs on /queue".into()));
        assert_eq!(screen(&mut state, 80, 5)[1], "no master runs on /queue");
        state.update(Ok(calm()));
        state.update(Err("no master runs on /queue".into()));
        let shown = screen(&mut state, 80, 12);
        assert_eq!(shown[1], "no master runs on /queue; this is how it was");
        assert!(shown[3].starts_with("smtp/inet"), "{shown:?}");
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        let mut document = hostile();
        document.services[0].name = "a\u{1b}[2Jb\u{202e}c\n".into();
        document.configuration = "\u{1b}]0;x\u{7}".into();
        let shown = screen(&mut State::knowing(document), 80, 12);
        assert!(shown[0].ends_with("?]0;x?"), "{shown:?}");
        assert!(shown[3].starts_with("a?[2Jb?c?/inet"), "{shown:?}");
    }

    #[test]
    fn help_lies_over_the_services() {
        let mut state = incident();
        state.shows_help = true;
        let shown = screen(&mut state, 80, 24).join("\n");
        assert!(HELP.iter().all(|line| shown.contains(line)), "{shown}");
    }

    #[test]
    fn little_is_seen_as_well_and_the_limit_is_the_measure_of_much() {
        assert_eq!(curve(&[0, 1, 2, 4], 100, 6), "   ▂▄█");
        assert_eq!(curve(&[0, 1, 50, 100], 100, 4), " ▁▄█");
        assert_eq!(curve(&[1, 2, 3], 0, 2), "▆█");
        assert_eq!(curve(&[7], 5, 1), "█", "more than a lowered limit");
        assert_eq!(curve(&[], 5, 2), "  ");
    }
}
