//! What people write of a version, a move or a deployment: one line each, so that lists, ledgers and logs stay readable.

use super::Failure;

/// So much of a text is shown where it is refused, in characters.
const SHOWN_CHARS: usize = 40;

/// That a text is one line.
///
/// # Errors
/// It has a control character: which, and where.
pub(super) fn check(option: &str, text: &str) -> Result<(), Failure> {
    let Some((before, letter)) = text.chars().enumerate().find(|(_, letter)| letter.is_control()) else { return Ok(()) };
    let what = if letter == '\n' { "a line break".to_owned() } else { format!("the control character {}", letter.escape_default()) };
    let rule = "must be one line of text, without control characters";
    Err(Failure::usage(format!("{option}: {what} after {before} characters of {:?}: {rule}", cut(text))))
}

/// A text as far as it is shown.
pub(super) fn cut(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    if shown.len() == text.len() { shown } else { format!("{shown}...") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_and_a_long_one_is_not_repeated() {
        assert!(check("--why", "tonight's model, größer").is_ok());
        let said = |text: &str| check("--why", text).unwrap_err().message().to_owned();
        assert_eq!(
            said("one\ntwo"),
            "--why: a line break after 3 characters of \"one\\ntwo\": must be one line of text, without control characters"
        );
        assert!(said("a\u{1b}[2J").contains(r"the control character \u{1b} after 1 characters"));
        assert!(said(&format!("{}\t", "x".repeat(5_000))).len() < 200);
        assert_eq!((cut(&"x".repeat(40)), cut(&"x".repeat(41))), ("x".repeat(40), format!("{}...", "x".repeat(40))));
    }
}
