//! `master_service_disable`: services of the table that are ignored (Postfix, `match_service.c`).

use super::text::is_list_separator;
use super::words::Words;

/// Patterns `name/type` and `type`, each perhaps negated with `!`; the first match decides.
#[derive(Debug, Default)]
pub(super) struct Disabled(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// `name/type` or `type`, in lower case.
    text: Vec<u8>,
    /// Whether a matching service is ignored.
    disables: bool,
}

impl Disabled {
    pub(super) fn parse(list: &[u8]) -> Self {
        let words = Words::all(list, is_list_separator);
        Self(words.map(Pattern::parse).collect())
    }

    /// Ignores all services of a type. This takes precedence over the other patterns.
    pub(super) fn add_type(&mut self, kind: &str) {
        self.0.insert(0, Pattern::parse(kind.as_bytes()));
    }

    /// Whether the table's entry for this service is ignored.
    pub(super) fn contains(&self, name: &[u8], kind: &[u8]) -> bool {
        let full = [name, b"/", kind].concat();
        self.0
            .iter()
            .find(|pattern| pattern.matches(&full, kind))
            .is_some_and(|pattern| pattern.disables)
    }
}

impl Pattern {
    fn parse(word: &[u8]) -> Self {
        let negations = word.iter().take_while(|&&b| b == b'!').count();
        let mut text = word[negations..].to_ascii_lowercase();
        // Before Postfix 2.6 the form was `name.type`.
        if !text.contains(&b'/') {
            if let Some(dot) = text.iter().rposition(|&b| b == b'.') {
                text[dot] = b'/';
            }
        }
        Self {
            text,
            disables: negations % 2 == 0,
        }
    }

    fn matches(&self, full: &[u8], kind: &[u8]) -> bool {
        let subject = if self.text.contains(&b'/') {
            full
        } else {
            kind
        };
        subject.eq_ignore_ascii_case(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disables(list: &str, service: &str) -> bool {
        let (name, kind) = service.rsplit_once('/').expect("a test's name/type");
        Disabled::parse(list.as_bytes()).contains(name.as_bytes(), kind.as_bytes())
    }

    #[test]
    fn nothing_is_disabled_by_default() {
        assert!(!disables("", "smtp/inet"));
    }

    #[test]
    fn a_type_disables_all_its_services() {
        assert!(disables("fifo, inet", "smtp/inet"));
        assert!(!disables("inet", "smtp/unix"));
    }

    #[test]
    fn a_name_and_type_disable_one_service() {
        assert!(disables("smtp/inet", "smtp/inet"));
        assert!(!disables("smtp/inet", "25/inet"));
    }

    #[test]
    fn case_does_not_matter() {
        assert!(disables("SMTP/Inet", "smtp/inet"));
        assert!(disables("smtp/inet", "Smtp/inet"));
    }

    #[test]
    fn the_first_match_decides_and_an_exclamation_mark_negates() {
        assert!(!disables("!smtp/inet inet", "smtp/inet"));
        assert!(disables("!smtp/inet inet", "25/inet"));
        assert!(disables("!!inet", "smtp/inet"));
        assert!(disables("inet !smtp/inet", "smtp/inet"));
    }

    #[test]
    fn a_dot_separates_in_the_old_form() {
        assert!(disables("smtp.inet", "smtp/inet"));
        assert!(disables("127.0.0.1:25.inet", "127.0.0.1:25/inet"));
        assert!(!disables("a.b/inet", "a/b/inet"));
    }
}
