//! Tables that fit.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Look, Tone, clean};

/// What is between two columns.
const GAP: &str = "  ";

/// No column is cut to less.
const LEAST: usize = 6;

/// One cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(crate) fn new(tone: Tone, text: impl ToString) -> Self {
        // A cell is on one line.
        let text = clean(&text.to_string()).replace(['\n', '\t'], " ");
        Self { text, tone }
    }
}

impl<T: ToString> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(Tone::Plain, text)
    }
}

/// Rows under heads. On a terminal the widest columns are cut until it fits; where a program reads it, none is.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<Cell>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(heads: [&str; N]) -> Self {
        let heads = heads.map(|head| Cell::new(Tone::Dim, head.to_uppercase())).into();
        Self { heads, rows: Vec::new() }
    }

    /// Adds a row with a cell for each head.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.heads.len(), "a cell for each head");
        self.rows.push(cells.into());
    }

    /// The lines, each with its end.
    pub(crate) fn render(&self, look: Look) -> String {
        let lines = || std::iter::once(&self.heads).chain(&self.rows);
        let wanted = |column: usize| lines().map(|row| row.get(column).map_or(0, |cell| cell.text.width())).max();
        let mut widths: Vec<_> = (0..self.heads.len()).map(|column| wanted(column).unwrap_or(0)).collect();
        if let Some(width) = look.width {
            fit(&mut widths, width.saturating_sub(GAP.len() * self.heads.len().saturating_sub(1)));
        }
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            let mut owed = 0;
            for (cell, width) in row.iter().zip(&widths) {
                let shown = cut(&cell.text, *width);
                if !shown.is_empty() {
                    // Written only when something follows: no line ends with spaces.
                    line.push_str(&" ".repeat(owed));
                    owed = 0;
                    line.push_str(&look.paint(cell.tone, &shown));
                }
                owed += width - shown.width() + GAP.len();
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// Takes from the widest until all of them fit, or none has anything left to give.
fn fit(widths: &mut [usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max().filter(|width| **width > LEAST) else { return };
        *widest -= 1;
    }
}

/// As much of a text as fits.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let kept = text.chars().take_while(|c| {
        let wide = c.width().unwrap_or(0);
        let fits = wide <= left;
        left = left.saturating_sub(wide);
        fits
    });
    kept.chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn table(rows: &[[&str; 3]]) -> Table {
        let mut table = Table::new(["name", "state", "url"]);
        rows.iter().for_each(|row| table.row(row.map(Cell::from)));
        table
    }

    const ROWS: [[&str; 3]; 2] =
        [["pay", "running", "http://vm.example:20001/erangel"], ["a-very-long-sandbox-name", "asleep", ""]];

    #[test]
    fn columns_are_lined_up_and_lines_have_no_tail() {
        let look = Look::default();
        assert_eq!(
            table(&ROWS).render(look),
            "NAME                      STATE    URL\n\
             pay                       running  http://vm.example:20001/erangel\n\
             a-very-long-sandbox-name  asleep\n"
        );
    }

    #[test]
    fn on_a_terminal_the_widest_columns_are_cut() {
        let look = Look { width: Some(40), has_colour: false };
        assert_eq!(
            table(&ROWS).render(look),
            "NAME             STATE    URL\n\
             pay              running  http://vm.exa…\n\
             a-very-long-sa…  asleep\n"
        );
    }

    #[test]
    fn colour_is_beside_the_spaces_and_cells_cannot_have_their_own() {
        let mut table = Table::new(["a", "b"]);
        table.row([Cell::new(Tone::Good, "ok"), "\x1b[31mx\ny".into()]);
        let look = Look { width: None, has_colour: true };
        let text = table.render(look);
        assert_eq!(text.lines().nth(1).unwrap(), "\x1b[32mok\x1b[0m  x y");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(rows in vec(["\\PC{0,30}", "\\PC{0,9}", "\\PC{0,60}"], 0..6), width in 22usize..100) {
            let rows: Vec<[&str; 3]> = rows.iter().map(|row| [&*row[0], &*row[1], &*row[2]]).collect();
            let text = table(&rows).render(Look { width: Some(width), has_colour: false });
            prop_assert_eq!(text.lines().count(), rows.len() + 1);
            for line in text.lines() {
                prop_assert!(line.width() <= width, "{:?}", line);
            }
        }
    }
}
