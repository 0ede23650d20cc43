//! What the demo looks like: a timeline that grows, one line below it that lives, and a table at the end.
//!
//! Colours and the living line only on a terminal that wants them (`NO_COLOR`, `TERM=dumb`); elsewhere plain lines.

use std::io::Write as _;
use std::time::Duration;

use console::{Style, Term, measure_text_width, truncate_str};
use tokio::time::Instant;

/// Narrower terminals are treated as this wide; wider ones get no longer lines than [`WIDEST`].
const NARROWEST: usize = 60;
const WIDEST: usize = 118;
/// Columns before a timeline entry's text: the time and the label.
const INDENT: usize = 29;
/// Columns before a label.
const LABELS: usize = 11;
/// Characters of a share's bar: as many as the living line has room for beside [`STATUS_TEXT`] others.
const BARS: std::ops::RangeInclusive<usize> = 3..=14;
const STATUS_TEXT: usize = 74;

/// How an entry of the timeline is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Quiet,
    Change,
    Good,
    Bad,
}

/// The terminal.
#[derive(Debug)]
pub(super) struct Screen {
    term: Term,
    began: Instant,
    has_colours: bool,
    is_alive: bool,
    has_status: bool,
    frame: usize,
}

impl Screen {
    /// On stdout, or on stderr where stdout is for machines.
    pub(super) fn new(for_machines: bool) -> Screen {
        let term = if for_machines { Term::stderr() } else { Term::stdout() };
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_alive = term.is_term() && std::env::var_os("TERM").is_none_or(|name| name != "dumb");
        Screen { has_colours: is_alive && !is_set("NO_COLOR"), is_alive, term, began: Instant::now(), has_status: false, frame: 0 }
    }

    /// Seconds since the demo began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A line without a time.
    pub(super) fn say(&mut self, text: &str) {
        self.clear_status();
        self.write(text);
    }

    /// A heading.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.paint(&Style::new().bold(), text);
        self.say(&text);
    }

    /// A heading within the timeline.
    pub(super) fn chapter(&mut self, text: &str) {
        self.say("");
        self.title(text);
    }

    /// A paragraph, wrapped at the terminal's width.
    pub(super) fn paragraph(&mut self, text: &str) {
        for line in wrap(text, self.width()) {
            self.say(&line);
        }
    }

    /// An entry of the timeline: when, what, and more about it, wrapped at the terminal's width.
    pub(super) fn event(&mut self, tone: Tone, label: &str, text: &str) {
        let (time, style) = (format!("{:6.1} s", self.elapsed().as_secs_f64()), style(tone));
        let label = self.paint(&style, &format!("{label:<17}"));
        let time = self.paint(&Style::new().dim(), &time);
        let mut lines = wrap(text, self.width() - INDENT).into_iter();
        self.say(&format!(" {time}  {label} {}", lines.next().unwrap_or_default()));
        for line in lines {
            self.say(&format!("{:INDENT$}{line}", ""));
        }
    }

    /// A row of somebody else's table, below the labels; nothing of it where it is too long.
    pub(super) fn row(&mut self, row: &str) {
        let line = format!("{:LABELS$}{}", "", row.trim());
        if measure_text_width(&line) <= self.width() {
            self.say(&line);
        }
    }

    /// Redraws the living line; nothing where there is none.
    pub(super) fn status(&mut self, names: &[&str; 3], shares: [f64; 3], text: &str) {
        if !self.is_alive {
            return;
        }
        self.clear_status();
        self.frame += 1;
        let spinner = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
        let spinner = spinner.get(self.frame % spinner.len()).copied().unwrap_or_default();
        let cells = (self.width().saturating_sub(STATUS_TEXT) / names.len()).clamp(*BARS.start(), *BARS.end());
        let mut line = format!(" {:6.1} s  {} ", self.elapsed().as_secs_f64(), self.paint(&Style::new().cyan(), spinner));
        for (name, share) in names.iter().zip(shares) {
            let colour = pool_style(name);
            let (full, rest) = bar(share, cells);
            let (full, rest) = (self.paint(&colour, &full), self.paint(&Style::new().dim(), &rest));
            line.push_str(&format!(" {name} {full}{rest} {:>3.0} % ", share * 100.0));
        }
        line.push_str(text);
        let line = truncate_str(&line, self.width(), "").into_owned();
        // A terminal that is gone has nobody who would look.
        let _ = self.term.write_line(&line);
        self.has_status = true;
    }

    /// A table: the first row is the heading, `is_number` says which columns are set to the right.
    pub(super) fn table(&mut self, rows: &[Vec<String>], is_number: &[bool]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell)).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (place, row) in rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).zip(is_number.iter().chain(std::iter::repeat(&false)));
            let cells = cells.map(|((cell, width), to_right)| pad(cell, *width, *to_right));
            let line = format!("  {}", cells.collect::<Vec<_>>().join("   "));
            let line = line.trim_end();
            let line = if place == 0 { self.paint(&Style::new().dim(), line) } else { line.to_owned() };
            self.say(&line);
        }
    }

    /// Green when it is as it should be, red when not.
    pub(super) fn verdict(&self, is_good: bool, text: &str) -> String {
        self.paint(&style(if is_good { Tone::Good } else { Tone::Bad }), text)
    }

    /// Removes the living line.
    pub(super) fn clear_status(&mut self) {
        if self.has_status {
            let _ = self.term.clear_last_lines(1);
            self.has_status = false;
        }
    }

    fn write(&mut self, line: &str) {
        let _ = writeln!(self.term, "{line}");
    }

    fn paint(&self, style: &Style, text: &str) -> String {
        style.clone().force_styling(self.has_colours).apply_to(text).to_string()
    }

    fn width(&self) -> usize {
        let width = if self.is_alive { usize::from(self.term.size().1) } else { WIDEST };
        width.saturating_sub(1).clamp(NARROWEST, WIDEST)
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Quiet => Style::new(),
        Tone::Change => Style::new().cyan().bold(),
        Tone::Good => Style::new().green().bold(),
        Tone::Bad => Style::new().red().bold(),
    }
}

fn pool_style(name: &str) -> Style {
    match name {
        "blue" => Style::new().blue(),
        "green" => Style::new().green(),
        _ => Style::new().yellow(),
    }
}

/// A share as full and empty cells; a share that is not zero always shows.
pub(super) fn bar(share: f64, width: usize) -> (String, String) {
    let full = (0..width).filter(|cell| share * width as f64 > *cell as f64 + 0.5).count();
    let full = if share > 0.0 { full.max(1) } else { 0 };
    ("█".repeat(full), "░".repeat(width - full))
}

fn pad(cell: &str, width: usize, to_right: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(measure_text_width(cell)));
    if to_right { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") }
}

/// Breaks text at blanks; a word that is longer than the width stands alone.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if measure_text_width(line) + 1 + measure_text_width(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_wraps_at_blanks_and_long_words_stand_alone() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a incomprehensibilities b", 5), ["a", "incomprehensibilities", "b"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn a_small_share_still_shows_and_a_whole_one_fills_the_bar() {
        assert_eq!(bar(0.0, 14).0, "");
        assert_eq!(bar(0.01, 14).0.chars().count(), 1);
        assert_eq!(bar(1.0, 14), ("█".repeat(14), String::new()));
        assert_eq!(bar(0.5, 14).0.chars().count(), 7);
    }

    #[test]
    fn numbers_stand_right_and_words_left() {
        assert_eq!(pad("7", 3, true), "  7");
        assert_eq!(pad("ab", 3, false), "ab ");
    }
}
