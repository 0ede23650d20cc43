//! Columns of text, as wide as they need to be.

/// Rows with aligned columns, each indented by two blanks. Trailing blanks are cut.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
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
}
