//! The expansion language of `main.cf` (postconf(5), "`$name`"; Postfix, `mac_expand.c` and
//! `mac_parse.c`): references, conditions and comparisons, nested.
//!
//! The text inside a reference is expanded in place and never copied, so that an error has the
//! position of the wrong character, in the parameter that contains it.

use std::cmp::Ordering;
use std::fmt;

use super::main_cf::Dictionary;
use super::numbers::{BadLevel, Level, digits, is_digits};
use super::text::{Text, is_blank, shown};
use super::{Diagnostic, Diagnostics};

/// Maximum nesting of references (Postfix, `mac_expand.c`): a parameter that refers to itself is an
/// error, not an endless loop.
const DEPTH_MAX: usize = 100;

/// Maximum text that one expansion may read, in bytes. The nesting limit alone would let `$a$a`
/// double its text at each level. The output is never longer than the text that was read.
const WORK_MAX: usize = 256 << 10;

/// Maximum number of warnings about undefined parameters in one expansion.
const WARNINGS_MAX: usize = 10;

/// Why a value cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    TruncatedReference,
    EmptyName,
    TooDeep,
    TooLarge,
    BadName,
    UnbalancedBraces,
    OperatorExpected,
    BadSuffix(String),
    OperandExpected,
    ConditionExpected,
    ColonExpected,
    TrailingText,
    BadNumber(String),
    BadLevel(BadLevel),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TruncatedReference => {
                f.write_str("truncated macro reference: expected a closing brace or parenthesis")
            }
            Self::EmptyName => f.write_str(
                "empty macro name: expected a parameter name after \"$\"; write \"$$\" for \"$\"",
            ),
            Self::TooDeep => write!(
                f,
                "unreasonable macro call nesting: expected at most {DEPTH_MAX} levels; \
                 does a parameter refer to itself?"
            ),
            Self::TooLarge => write!(
                f,
                "unreasonably large expansion: expected at most {WORK_MAX} bytes"
            ),
            Self::BadName => f.write_str(
                "attribute name syntax error: expected letters, digits and \"_\", then \"?\", \
                 \":\" or the end",
            ),
            Self::UnbalancedBraces => {
                f.write_str("unbalanced {} in attribute expression: expected \"}\"")
            }
            Self::OperatorExpected => {
                f.write_str("expected \"==\", \"!=\", \"<\", \"<=\", \">=\" or \">\"")
            }
            Self::BadSuffix(suffix) => {
                write!(f, "bad operator suffix: \"{suffix}\": expected \"level\"")
            }
            Self::OperandExpected => f.write_str("expected \"{expression}\""),
            Self::ConditionExpected => f.write_str("expected \"?\" or \":\" after \"}\""),
            Self::ColonExpected => f.write_str("expected \":\" or the end after \"}\""),
            Self::TrailingText => f.write_str("unexpected text after \"}\": expected the end"),
            Self::BadNumber(number) => write!(
                f,
                "bad conversion: \"{number}\": expected at most {}",
                i64::MAX
            ),
            Self::BadLevel(problem) => problem.fmt(f),
        }
    }
}

/// A part of a value, as written in the file.
#[derive(Clone, Copy)]
struct Span<'a> {
    text: &'a Text,
    start: usize,
    end: usize,
}

impl<'a> Span<'a> {
    fn whole(text: &'a Text) -> Self {
        Self {
            text,
            start: 0,
            end: text.bytes().len(),
        }
    }

    fn bytes(self) -> &'a [u8] {
        &self.text.bytes()[self.start..self.end]
    }

    fn first(self) -> Option<u8> {
        self.bytes().first().copied()
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The first `n` bytes, and the rest; `n` is at most the length.
    fn split(self, n: usize) -> (Self, Self) {
        let at = self.start + n;
        (Self { end: at, ..self }, Self { start: at, ..self })
    }

    /// The longest prefix of bytes that are `wanted`, and the rest.
    fn split_while(self, wanted: impl Fn(u8) -> bool) -> (Self, Self) {
        self.split(self.bytes().iter().take_while(|&&b| wanted(b)).count())
    }

    fn skip(self, n: usize) -> Self {
        self.split(n).1
    }

    fn skip_blanks(self) -> Self {
        self.split_while(is_blank).1
    }

    /// For a span that begins with `open`: the text up to the matching `close`, and the rest.
    fn bracketed(self, open: u8, close: u8) -> Option<(Self, Self)> {
        let mut level = 0;
        for (n, &byte) in self.bytes().iter().enumerate() {
            if byte == open {
                level += 1;
            } else if byte == close {
                level -= 1;
                if level == 0 {
                    let (inside, rest) = self.split(n);
                    return Some((inside.skip(1), rest.skip(1)));
                }
            }
        }
        None
    }

    /// `{ inside }` with white space around it, if a brace comes next.
    fn braced(self) -> Result<Option<(Self, Self)>, Diagnostic> {
        let brace = self.skip_blanks();
        if brace.first() != Some(b'{') {
            return Ok(None);
        }
        match brace.bracketed(b'{', b'}') {
            Some((inside, rest)) => Ok(Some((inside, rest.skip_blanks()))),
            None => Err(brace.error(Problem::UnbalancedBraces)),
        }
    }

    fn error(self, problem: Problem) -> Diagnostic {
        Diagnostic::error(self.text.place(self.start), problem.to_string())
    }
}

/// What a condition tests.
enum Subject<'a> {
    /// The name of an undefined parameter.
    Undefined(Span<'a>),
    Parameter(&'a Text),
    Comparison(bool),
}

impl Subject<'_> {
    /// As in Postfix, the unexpanded value counts: a parameter with the value `$empty` is set.
    fn is_set(&self) -> bool {
        match self {
            Self::Undefined(_) => false,
            Self::Parameter(value) => !value.bytes().is_empty(),
            Self::Comparison(holds) => *holds,
        }
    }
}

/// Expands `value`. Its references are looked up in `dictionary`. An undefined parameter expands to
/// nothing, with a warning in `findings`.
///
/// # Errors
/// The first error, with its position in the parameter that contains it.
pub(super) fn expand(
    value: &Text,
    dictionary: &Dictionary,
    findings: &mut Diagnostics,
) -> Result<Vec<u8>, Diagnostic> {
    let mut expansion = Expansion {
        dictionary,
        findings,
        budget: WORK_MAX,
        warnings: 0,
    };
    let mut output = Vec::new();
    expansion.text(Span::whole(value), 0, &mut output)?;
    Ok(output)
}

struct Expansion<'a, 'f> {
    dictionary: &'a Dictionary,
    findings: &'f mut Diagnostics,
    /// What remains of [`WORK_MAX`], in bytes.
    budget: usize,
    warnings: usize,
}

impl<'a> Expansion<'a, '_> {
    /// Literal text and references.
    fn text(&mut self, text: Span<'a>, depth: usize, output: &mut Vec<u8>) -> Outcome {
        self.spend(text, depth)?;
        let mut rest = text;
        loop {
            let (literal, dollar) = rest.split_while(|b| b != b'$');
            output.extend_from_slice(literal.bytes());
            if dollar.is_empty() {
                return Ok(());
            }
            let after = dollar.skip(1);
            rest = match after.first() {
                Some(b'$') => {
                    output.push(b'$');
                    after.skip(1)
                }
                Some(b'{') => self.bracketed_reference(dollar, b'}', depth, output)?,
                Some(b'(') => self.bracketed_reference(dollar, b')', depth, output)?,
                _ => self.bare_reference(dollar, depth, output)?,
            };
        }
    }

    fn spend(&mut self, text: Span<'a>, depth: usize) -> Outcome {
        let length = text.bytes().len();
        if length > 0 && depth > DEPTH_MAX {
            return Err(text.error(Problem::TooDeep));
        }
        // Each step costs at least 1, so that a loop of empty steps ends, too.
        let left = self.budget.checked_sub(length + 1);
        self.budget = left.ok_or_else(|| text.error(Problem::TooLarge))?;
        Ok(())
    }

    /// `$name`
    fn bare_reference(
        &mut self,
        dollar: Span<'a>,
        depth: usize,
        output: &mut Vec<u8>,
    ) -> Result<Span<'a>, Diagnostic> {
        let (name, rest) = dollar.skip(1).split_while(is_name);
        if name.is_empty() {
            return Err(dollar.error(Problem::EmptyName));
        }
        self.reference(name, depth, output)?;
        Ok(rest)
    }

    /// `${...}` or `$(...)`
    fn bracketed_reference(
        &mut self,
        dollar: Span<'a>,
        close: u8,
        depth: usize,
        output: &mut Vec<u8>,
    ) -> Result<Span<'a>, Diagnostic> {
        let open = if close == b'}' { b'{' } else { b'(' };
        let Some((inside, rest)) = dollar.skip(1).bracketed(open, close) else {
            return Err(dollar.error(Problem::TruncatedReference));
        };
        if inside.is_empty() {
            return Err(dollar.error(Problem::EmptyName));
        }
        self.reference(inside, depth, output)?;
        Ok(rest)
    }

    /// The text inside the brackets: a name or a comparison, and the results that depend on it.
    fn reference(&mut self, inside: Span<'a>, depth: usize, output: &mut Vec<u8>) -> Outcome {
        let inside = inside.skip_blanks();
        let (subject, rest) = match inside.braced()? {
            Some((left, rest)) => self.comparison(left, rest, depth)?,
            None => self.parameter(inside)?,
        };
        match rest.first() {
            None => self.value(&subject, depth, output),
            Some(b'?') => self.if_set(&subject, rest.skip(1), depth, output),
            Some(b':') => self.if_unset(&subject, rest.skip(1), depth, output),
            Some(_) => Err(rest.error(Problem::ConditionExpected)),
        }
    }

    /// `name`, followed by the end or by a condition.
    fn parameter(&self, inside: Span<'a>) -> Result<(Subject<'a>, Span<'a>), Diagnostic> {
        let (name, rest) = inside.split_while(is_name);
        let condition = rest.skip_blanks();
        if !matches!(condition.first(), None | Some(b'?' | b':')) {
            return Err(rest.error(Problem::BadName));
        }
        let subject = match self.dictionary.get(name.bytes()) {
            Some(value) => Subject::Parameter(value),
            None => Subject::Undefined(name),
        };
        Ok((subject, condition))
    }

    /// `{left} operator {right}`; `rest` begins with the operator.
    fn comparison(
        &mut self,
        left: Span<'a>,
        rest: Span<'a>,
        depth: usize,
    ) -> Result<(Subject<'a>, Span<'a>), Diagnostic> {
        let (symbol, after) = rest.split_while(|b| b"<>!=?+-*/~&|%".contains(&b));
        let Some(operator) = Operator::parse(symbol.bytes()) else {
            return Err(rest.error(Problem::OperatorExpected));
        };
        let (suffix, after) = after.split_while(|b| b.is_ascii_alphanumeric());
        let by_level = match suffix.bytes() {
            b"" => false,
            b"level" => true,
            other => return Err(suffix.error(Problem::BadSuffix(shown(other)))),
        };
        let Some((right, after)) = after.braced()? else {
            return Err(after.error(Problem::OperandExpected));
        };
        let left = self.operand(left, depth)?;
        let right = self.operand(right, depth)?;
        let ordering = if by_level {
            left.level()?.cmp(&right.level()?)
        } else {
            left.compare(&right)?
        };
        Ok((Subject::Comparison(operator.holds(ordering)), after))
    }

    fn operand(&mut self, span: Span<'a>, depth: usize) -> Result<Operand<'a>, Diagnostic> {
        let mut value = Vec::new();
        self.text(span, depth + 1, &mut value)?;
        Ok(Operand { span, value })
    }

    fn value(&mut self, subject: &Subject<'a>, depth: usize, output: &mut Vec<u8>) -> Outcome {
        match subject {
            Subject::Undefined(name) => self.warn_of_undefined(*name),
            Subject::Parameter(value) => self.text(Span::whole(value), depth + 1, output)?,
            Subject::Comparison(true) => output.extend_from_slice(b"true"),
            Subject::Comparison(false) => {}
        }
        Ok(())
    }

    /// `?result`, optionally followed by `:result`.
    fn if_set(
        &mut self,
        subject: &Subject<'a>,
        rest: Span<'a>,
        depth: usize,
        output: &mut Vec<u8>,
    ) -> Outcome {
        let (result, rest) = alternative(rest)?;
        if subject.is_set() {
            self.text(result, depth + 1, output)?;
        }
        match rest.first() {
            None => Ok(()),
            Some(b':') => self.if_unset(subject, rest.skip(1), depth, output),
            Some(_) => Err(rest.error(Problem::ColonExpected)),
        }
    }

    /// `:result`
    fn if_unset(
        &mut self,
        subject: &Subject<'a>,
        rest: Span<'a>,
        depth: usize,
        output: &mut Vec<u8>,
    ) -> Outcome {
        let (result, rest) = alternative(rest)?;
        if !rest.is_empty() {
            return Err(rest.error(Problem::TrailingText));
        }
        if !subject.is_set() {
            self.text(result, depth + 1, output)?;
        }
        Ok(())
    }

    fn warn_of_undefined(&mut self, name: Span<'a>) {
        if self.warnings == WARNINGS_MAX {
            return;
        }
        self.warnings += 1;
        let hint = match name.bytes() {
            b"mail_version" => ": it depends on the Postfix release, write the version out",
            _ => ": it expands to nothing",
        };
        let message = format!("undefined parameter: {}{hint}", shown(name.bytes()));
        let place = name.text.place(name.start);
        self.findings.push(Diagnostic::warning(place, message));
    }
}

type Outcome = Result<(), Diagnostic>;

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The result of a condition: text in braces and what follows it, or all that remains.
fn alternative(rest: Span<'_>) -> Result<(Span<'_>, Span<'_>), Diagnostic> {
    let all = rest.split(rest.bytes().len());
    Ok(rest.braced()?.unwrap_or(all))
}

/// One side of a comparison.
struct Operand<'a> {
    span: Span<'a>,
    value: Vec<u8>,
}

impl Operand<'_> {
    /// Compares by number when both sides are digits, otherwise byte by byte.
    fn compare(&self, other: &Self) -> Result<Ordering, Diagnostic> {
        if is_digits(&self.value) && is_digits(&other.value) {
            Ok(self.number()?.cmp(&other.number()?))
        } else {
            Ok(self.value.cmp(&other.value))
        }
    }

    fn number(&self) -> Result<i64, Diagnostic> {
        let bad = || self.span.error(Problem::BadNumber(shown(&self.value)));
        digits(&self.value).ok_or_else(bad)
    }

    fn level(&self) -> Result<Level, Diagnostic> {
        let bad = |problem| self.span.error(Problem::BadLevel(problem));
        Level::parse(&self.value).map_err(bad)
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    GreaterOrEqual,
    Greater,
}

impl Operator {
    fn parse(symbol: &[u8]) -> Option<Self> {
        match symbol {
            b"==" => Some(Self::Equal),
            b"!=" => Some(Self::NotEqual),
            b"<" => Some(Self::Less),
            b"<=" => Some(Self::LessOrEqual),
            b">=" => Some(Self::GreaterOrEqual),
            b">" => Some(Self::Greater),
            _ => None,
        }
    }

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::GreaterOrEqual => ordering.is_ge(),
            Self::Greater => ordering.is_gt(),
        }
    }
}

#[cfg(test)]
mod tests;
