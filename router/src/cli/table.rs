//! Columns of text, as wide as they need to be.

use std::borrow::Cow;

use crate::vocabulary::one_line;

/// Rows with aligned columns, each indented by two blanks. Trailing blanks are cut. A row is a line, whatever somebody wrote into a cell.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str("  ");
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["pool", "version", ""], ["blue", "v1", "live"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "  pool  version\n  blue  v1       live\n");
    }

    #[test]
    fn a_cell_makes_no_line_of_its_own() {
        let rows = [["tag zz", "ok\n  signed with  77"], ["tag\u{202e}y", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "  tag zz      ok\\n  signed with  77\n  tag\\u202ey  x\n");
    }
}
