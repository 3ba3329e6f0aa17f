//! Plain-text tables in columns with minimum widths and without rules, so that scripts can cut
//! them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width};

/// A column: its title, its minimum width, and the gap before it.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// In characters; a longer text makes the column wider.
    pub width: u16,
    /// Spaces before the column.
    pub gap: u16,
    pub alignment: CellAlignment,
}

impl Column {
    pub const fn left(gap: u16, title: &'static str, width: u16) -> Self {
        Self {
            title,
            width,
            gap,
            alignment: CellAlignment::Left,
        }
    }

    pub const fn right(gap: u16, title: &'static str, width: u16) -> Self {
        Self {
            alignment: CellAlignment::Right,
            ..Self::left(gap, title, width)
        }
    }
}

/// The titles, and one line for each row, without trailing spaces.
pub fn lines<const N: usize>(
    columns: &[Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_preset(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.map(|column| column.title))
        .add_rows(rows);
    for (shown, column) in table.column_iter_mut().zip(columns) {
        let width = Width::Fixed(column.gap + column.width);
        shown.set_padding((column.gap, 0));
        shown.set_cell_alignment(column.alignment);
        shown.set_constraint(ColumnConstraint::LowerBoundary(width));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::left(0, "NAME", 6),
        Column::right(1, "N", 4),
        Column::left(2, "STATE", 5),
    ];

    fn row(name: &str, number: &str, state: &str) -> [String; 3] {
        [name, number, state].map(str::to_owned)
    }

    #[test]
    fn columns_have_their_widths_whatever_is_in_them() {
        let shown = lines(&COLUMNS, [row("a", "7", ""), row("", "", "full")]);
        let expected = "NAME      N  STATE\na         7\n             full";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_column_grows_with_its_texts_and_no_line_is_broken() {
        let shown = lines(&COLUMNS, [row("longer name", "123456", "a, b")]);
        let expected = "NAME             N  STATE\nlonger name 123456  a, b";
        assert_eq!(shown, expected);
    }

    #[test]
    fn without_rows_there_are_titles() {
        assert_eq!(lines(&COLUMNS, []), "NAME      N  STATE");
    }
}
