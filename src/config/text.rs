//! Text that records the position of each of its bytes in its file, so that a finding inside an
//! expanded value names the right position. This module knows no syntax except white space.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use super::{Place, Position};

/// The characters of `isspace(3)`: Postfix trims them, and they begin a continuation line.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The characters between words; Postfix's `CHARS_SPACE`, narrower than [`is_space`].
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The characters between the items of a list; Postfix's `CHARS_COMMA_SP`.
pub(super) fn is_list_separator(byte: u8) -> bool {
    byte == b',' || is_blank(byte)
}

/// The range of `bytes` without [`is_space`] characters at either end.
pub(super) fn trimmed(bytes: &[u8]) -> Range<usize> {
    let Some(start) = bytes.iter().position(|&b| !is_space(b)) else {
        return 0..0;
    };
    let end = bytes.iter().rposition(|&b| !is_space(b)).unwrap_or(start);
    start..end + 1
}

/// The offset of the first word that begins with `#`, unless it is the first word.
pub(super) fn late_comment(bytes: &[u8]) -> Option<usize> {
    // Most texts have none, and this is fast.
    if !bytes.contains(&b'#') {
        return None;
    }
    (1..bytes.len()).find(|&at| bytes[at] == b'#' && is_space(bytes[at - 1]))
}

/// What to say about it.
pub(super) const LATE_COMMENT: &str =
    "\"#\" begins a comment only as the first character of a line: here it is text";

/// A text for a message: one line, printable, and of limited length.
pub(super) fn shown(bytes: &[u8]) -> String {
    const LIMIT: usize = 100;
    // A character has at most four bytes. One character more than the limit shows that text was
    // cut.
    let head = &bytes[..bytes.len().min(4 * (LIMIT + 1))];
    let text = String::from_utf8_lossy(head);
    let mut printable: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(LIMIT)
        .collect();
    if text.chars().nth(LIMIT).is_some() {
        printable.push_str("...");
    }
    printable
}

/// A text, usually made of several physical lines of one file.
#[derive(Clone, Debug)]
pub(super) struct Text {
    path: Rc<Path>,
    bytes: Vec<u8>,
    /// In ascending order; empty for a text that no file contains.
    pieces: Vec<Piece>,
}

/// A part of a text that is contiguous in the file.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// The offset of its first byte in the text.
    offset: usize,
    /// The position of its first byte in the file.
    position: Position,
}

impl Text {
    /// An empty text.
    pub(super) fn new(path: Rc<Path>) -> Self {
        Self {
            path,
            bytes: Vec::new(),
            pieces: Vec::new(),
        }
    }

    /// A text that is not in the file `path`, such as a default value. Findings name the whole
    /// file.
    pub(super) fn unwritten(path: Rc<Path>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            ..Self::new(path)
        }
    }

    /// A text whose bytes all have the position `position`, because they differ from the file's: a
    /// string with escapes.
    pub(super) fn at(path: Rc<Path>, bytes: &[u8], position: Position) -> Self {
        let mut text = Self::new(path);
        for byte in bytes.chunks(1) {
            text.append(byte, position);
        }
        text
    }

    /// Appends text that begins at `position` in the file; `bytes` contains no line end.
    pub(super) fn append(&mut self, bytes: &[u8], position: Position) {
        self.pieces.push(Piece {
            offset: self.bytes.len(),
            position,
        });
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The position of the byte at `offset`, which may be the text's length.
    pub(super) fn place(&self, offset: usize) -> Place {
        Place {
            path: self.path.to_path_buf(),
            position: self.position(offset),
        }
    }

    fn position(&self, offset: usize) -> Option<Position> {
        let following = self.pieces.partition_point(|p| p.offset <= offset);
        let piece = self.pieces[..following].last()?;
        let before = &self.bytes[piece.offset..offset.min(self.bytes.len())];
        Some(piece.position.after(before))
    }

    /// The offsets at which the second and further lines of the file begin.
    pub(super) fn line_starts(&self) -> impl Iterator<Item = usize> {
        self.pieces.iter().skip(1).map(|piece| piece.offset)
    }

    /// The text after a prefix, which has the position of the text's first byte.
    pub(super) fn after(&self, prefix: &[u8]) -> Self {
        let first = self.position(0).map(|position| Piece {
            offset: 0,
            position,
        });
        let moved = self.pieces.iter().map(|piece| Piece {
            offset: piece.offset + prefix.len(),
            ..*piece
        });
        Self {
            path: Rc::clone(&self.path),
            pieces: first.into_iter().chain(moved).collect(),
            bytes: [prefix, &self.bytes].concat(),
        }
    }

    /// A part of the text, with its positions.
    pub(super) fn slice(&self, range: Range<usize>) -> Self {
        let first = self.position(range.start).map(|position| Piece {
            offset: 0,
            position,
        });
        let inner = self.pieces.iter().filter_map(|p| {
            let inside = range.start < p.offset && p.offset < range.end;
            inside.then(|| Piece {
                offset: p.offset - range.start,
                position: p.position,
            })
        });
        Self {
            path: Rc::clone(&self.path),
            pieces: first.into_iter().chain(inner).collect(),
            bytes: self.bytes[range].to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(line: u32, column: u32) -> Option<Position> {
        Some(Position { line, column })
    }

    fn two_lines() -> Text {
        let mut text = Text::new(Rc::from(Path::new("f")));
        text.append("aä=".as_bytes(), Position { line: 1, column: 1 });
        text.append(b"  bc", Position { line: 4, column: 1 });
        text
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(two_lines().place(3).position, position(1, 3));
    }

    #[test]
    fn a_byte_of_a_continuation_has_its_own_line() {
        assert_eq!(two_lines().place(6).position, position(4, 3));
    }

    #[test]
    fn the_end_of_a_text_has_a_place() {
        assert_eq!(two_lines().place(8).position, position(4, 5));
    }

    #[test]
    fn a_slice_keeps_its_places() {
        let slice = two_lines().slice(1..7);
        assert_eq!(slice.bytes(), "ä=  b".as_bytes());
        assert_eq!(slice.place(0).position, position(1, 2));
        assert_eq!(slice.place(5).position, position(4, 3));
    }

    #[test]
    fn a_prefix_moves_no_place() {
        let text = two_lines().after(b"$x/");
        assert_eq!(text.bytes(), "$x/aä=  bc".as_bytes());
        assert_eq!(text.place(0).position, position(1, 1));
        assert_eq!(text.place(3).position, position(1, 1));
        assert_eq!(text.place(9).position, position(4, 3));
    }

    #[test]
    fn a_default_value_has_no_position() {
        let text = Text::unwritten(Rc::from(Path::new("f")), "x");
        assert_eq!(text.place(0).position, None);
        assert_eq!(text.slice(0..1).place(0).position, None);
    }

    #[test]
    fn what_is_shown_is_printable_and_short() {
        assert_eq!(shown(b"a\x1b[\xff"), "a?[\u{fffd}");
        assert_eq!(shown(&[b'x'; 1000]).len(), 103);
    }
}
