//! The data about the master, and the user's choices.

use std::collections::{HashMap, HashSet, VecDeque};

use master::status::{Document, Service};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::PollResult;

/// Maximum number of samples of each service, one per column of a terminal.
const SAMPLES: usize = 500;
const FILTER_MAX: usize = 100;
/// Lines around the services: two for the master, one for titles, one for keys.
pub const FRAME: u16 = 4;

/// The effect of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEffect {
    Stay,
    Leave,
}

/// The order of the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The services with the worst problems first.
    #[default]
    Trouble,
    /// As in the service table.
    Table,
    Busy,
    Name,
}

/// The problems of a service, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    None,
    /// No template has loaded.
    Loading,
    Paused,
    Stress,
    Limit,
    Stalled,
    Throttled,
}

/// The identity of a service: its canonical name and type.
type Key = (String, String);

#[derive(Debug, Default)]
pub struct State {
    pub document: Option<Document>,
    /// Why the last request failed.
    pub problem: Option<String>,
    past: HashMap<Key, VecDeque<u32>>,
    pub order: Order,
    pub filter: String,
    /// Whether keys are added to the filter.
    pub is_typing: bool,
    pub shows_help: bool,
    /// The index of the first visible service, and the number of visible lines.
    pub first: usize,
    pub room: usize,
}

impl State {
    /// Stores the result of a request.
    pub fn update(&mut self, news: PollResult) {
        let document = match news {
            Ok(document) => document,
            Err(problem) => {
                self.problem = Some(problem);
                return;
            }
        };
        let there: HashSet<Key> = document.services.iter().map(key).collect();
        self.past.retain(|key, _| there.contains(key));
        for service in &document.services {
            let past = self.past.entry(key(service)).or_default();
            if past.len() == SAMPLES {
                past.pop_front();
            }
            past.push_back(service.busy);
        }
        self.document = Some(document);
        self.problem = None;
    }

    /// The services that match the filter, in the chosen order.
    pub fn chosen(&self) -> Vec<&Service> {
        let services = self.document.iter().flat_map(|document| &document.services);
        let mut chosen: Vec<&Service> = services.filter(|service| self.lets(service)).collect();
        match self.order {
            Order::Trouble => chosen.sort_by_key(|service| std::cmp::Reverse(trouble(service))),
            Order::Table => {}
            Order::Busy => chosen.sort_by_key(|service| std::cmp::Reverse(service.busy)),
            Order::Name => chosen.sort_by(|a, b| a.name.cmp(&b.name)),
        }
        chosen
    }

    fn lets(&self, service: &Service) -> bool {
        let text = format!(
            "{} {} {}",
            title(service),
            service.endpoint,
            words(trouble(service))
        )
        .to_lowercase();
        let filter = self.filter.to_lowercase();
        filter.split_whitespace().all(|word| text.contains(word))
    }

    /// The recent numbers of busy children, the latest last.
    pub fn past(&self, service: &Service) -> Vec<u32> {
        let past = self.past.get(&key(service));
        past.map_or_else(Vec::new, |past| past.iter().copied().collect())
    }

    /// The height for all services, in lines.
    pub fn height_of_all(&self) -> u16 {
        // The terminal library's buffers are limited; further services are not shown.
        let services = u16::try_from(self.chosen().len().min(20_000)).unwrap_or(u16::MAX);
        services.saturating_add(FRAME - 1)
    }

    /// Executes a key's command.
    pub fn press(&mut self, key: KeyEvent) -> KeyEffect {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if control => return KeyEffect::Leave,
            _ if self.shows_help => self.shows_help = false,
            _ if self.is_typing => self.type_filter(key.code),
            KeyCode::Char('q') => return KeyEffect::Leave,
            KeyCode::Esc if self.filter.is_empty() => return KeyEffect::Leave,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.shows_help = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('s') => self.order = self.order.next(),
            code => self.scroll(code),
        }
        KeyEffect::Stay
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if self.filter.len() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
    }

    fn scroll(&mut self, code: KeyCode) {
        let page = self.room.max(1);
        self.first = match code {
            KeyCode::Down | KeyCode::Char('j') => self.first.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.first.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.first.saturating_add(page),
            KeyCode::PageUp => self.first.saturating_sub(page),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX,
            _ => self.first,
        };
        self.settle(self.room);
    }

    /// Scrolls back if there would be empty lines below the last service.
    pub fn settle(&mut self, room: usize) {
        self.room = room;
        self.first = self.first.min(self.chosen().len().saturating_sub(room));
    }
}

impl Order {
    fn next(self) -> Self {
        match self {
            Self::Trouble => Self::Table,
            Self::Table => Self::Busy,
            Self::Busy => Self::Name,
            Self::Name => Self::Trouble,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Self::Trouble => "trouble first",
            Self::Table => "as in the table",
            Self::Busy => "busiest first",
            Self::Name => "by name",
        }
    }
}

fn key(service: &Service) -> Key {
    (service.endpoint.clone(), service.kind.clone())
}

pub fn title(service: &Service) -> String {
    format!("{}/{}", service.name, service.kind)
}

/// All problems of a service, the worst first.
pub fn troubles(service: &Service) -> Vec<Trouble> {
    let found = [
        (service.throttled_until.is_some(), Trouble::Throttled),
        (service.stalled, Trouble::Stalled),
        (service.is_full(), Trouble::Limit),
        (service.stress_until.is_some(), Trouble::Stress),
        (service.paused, Trouble::Paused),
        (service.is_loading(), Trouble::Loading),
    ]
    .into_iter()
    .filter(|(is_there, _)| *is_there);
    found.map(|(_, trouble)| trouble).collect()
}

/// The worst problem of a service.
pub fn trouble(service: &Service) -> Trouble {
    troubles(service).first().copied().unwrap_or(Trouble::None)
}

pub fn words(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::None => "",
        Trouble::Loading => "loading",
        Trouble::Paused => "paused",
        Trouble::Stress => "stress",
        Trouble::Limit => "full",
        Trouble::Stalled => "stalled",
        Trouble::Throttled => "throttled",
    }
}

#[cfg(test)]
impl State {
    /// The state after one successful request.
    pub fn knowing(document: Document) -> Self {
        let mut state = Self::default();
        state.update(Ok(document));
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::{calm, crowd, loaded, stressed, throttled};

    fn press(state: &mut State, code: KeyCode) -> KeyEffect {
        state.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn write(state: &mut State, text: &str) {
        text.chars().for_each(|c| {
            press(state, KeyCode::Char(c));
        });
    }

    fn names(state: &State) -> Vec<&str> {
        state.chosen().iter().map(|s| s.name.as_str()).collect()
    }

    #[test]
    fn what_is_in_trouble_comes_first() {
        let mut document = stressed();
        document.services[6].throttled_until = throttled().services[6].throttled_until;
        let state = State::knowing(document);
        assert_eq!(names(&state)[..3], ["policyd", "smtp", "pickup"]);
    }

    #[test]
    fn a_key_changes_the_order() {
        let mut state = State::knowing(loaded());
        let mut first = Vec::new();
        for _ in 0..4 {
            press(&mut state, KeyCode::Char('s'));
            first.push((state.order, names(&state)[0].to_owned()));
        }
        let expected = [
            (Order::Table, "smtp"),
            (Order::Busy, "smtp"),
            (Order::Name, "bounce"),
            (Order::Trouble, "smtp"),
        ];
        assert_eq!(
            first,
            expected.map(|(order, name)| (order, name.to_owned()))
        );
    }

    #[test]
    fn a_filter_is_typed_kept_and_taken_back() {
        let mut state = State::knowing(calm());
        write(&mut state, "/Q");
        assert_eq!(names(&state), ["qmgr"]);
        assert_eq!(
            press(&mut state, KeyCode::Char('q')),
            KeyEffect::Stay,
            "it is typed"
        );
        press(&mut state, KeyCode::Backspace);
        press(&mut state, KeyCode::Enter);
        assert_eq!(names(&state), ["qmgr"]);
        assert_eq!(press(&mut state, KeyCode::Esc), KeyEffect::Stay);
        assert_eq!(names(&state).len(), 7);
        write(&mut state, "/private unix p");
        assert_eq!(names(&state).len(), 6);
        write(&mut state, &"x".repeat(1000));
        assert_eq!(state.filter.len(), FILTER_MAX);
    }

    #[test]
    fn the_filter_knows_what_is_wrong() {
        let mut state = State::knowing(throttled());
        write(&mut state, "/throttled");
        assert_eq!(names(&state), ["policyd"]);
    }

    #[test]
    fn help_comes_with_one_key_and_goes_with_any() {
        let mut state = State::knowing(calm());
        press(&mut state, KeyCode::Char('?'));
        assert!(state.shows_help);
        assert_eq!(press(&mut state, KeyCode::Char('q')), KeyEffect::Stay);
        assert!(!state.shows_help);
        assert_eq!(press(&mut state, KeyCode::Char('q')), KeyEffect::Leave);
    }

    #[test]
    fn control_c_leaves_whatever_is_shown() {
        let mut state = State::knowing(calm());
        write(&mut state, "/x");
        let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state.press(key), KeyEffect::Leave);
    }

    #[test]
    fn scrolling_ends_at_both_ends() {
        let mut state = State::knowing(crowd(50));
        state.settle(20);
        press(&mut state, KeyCode::Up);
        assert_eq!(state.first, 0);
        press(&mut state, KeyCode::PageDown);
        assert_eq!(state.first, 20);
        press(&mut state, KeyCode::End);
        assert_eq!(state.first, 30);
        press(&mut state, KeyCode::Down);
        assert_eq!(state.first, 30);
        write(&mut state, "/tenant7");
        state.settle(20);
        assert_eq!(state.first, 0, "what is left has room");
    }

    #[test]
    fn a_past_is_kept_and_has_an_end() {
        let mut state = State::knowing(calm());
        (0..SAMPLES).for_each(|_| state.update(Ok(loaded())));
        let past = state.past(&calm().services[0]);
        assert_eq!((past.len(), past[0]), (SAMPLES, 73));
        let mut other = calm();
        other.services.remove(0);
        state.update(Ok(other));
        assert!(state.past(&calm().services[0]).is_empty());
    }

    #[test]
    fn the_last_document_stays_when_the_master_does_not_answer() {
        let mut state = State::knowing(calm());
        state.update(Err("gone".into()));
        assert_eq!(state.problem.as_deref(), Some("gone"));
        assert_eq!(names(&state).len(), 7);
        state.update(Ok(calm()));
        assert_eq!(state.problem, None);
    }
}
