//! What people write of a version, a move or a deployment: one line each, so that lists, ledgers and logs stay readable.

use std::path::Path;

use super::Failure;
use crate::vocabulary::{ONE_LINE_RULE, not_one_line};

/// So much of a text is shown where it is refused, in characters.
const SHOWN_CHARS: usize = 40;

/// That a text is one line.
///
/// # Errors
/// It has a control character: which, and where.
pub(super) fn check(option: &str, text: &str) -> Result<(), Failure> {
    let Some(what) = not_one_line(text) else { return Ok(()) };
    Err(Failure::usage(format!("{option}: {what} of {:?}: {ONE_LINE_RULE}", cut(text))))
}

/// That a file's own name is: the registry keeps it, and shows it to everybody.
///
/// # Errors
/// As [`check`].
pub(super) fn check_file(path: &Path) -> Result<(), Failure> {
    path.file_name().map_or(Ok(()), |name| check("the file's name", &name.to_string_lossy()))
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
            "--why: a line break after 3 characters of \"one\\ntwo\": must be one line of text, without control characters and without those that change the direction of writing"
        );
        assert!(said("a\u{1b}[2J").contains(r"the control character \u{1b} after 1 characters"));
        assert!(said("\u{202e}ok=x").starts_with(r"--why: the control character \u{202e} after 0 characters"));
        assert!(said("a\u{2028}b").starts_with("--why: a line break after 1 characters"));
        assert!(said(&format!("{}\t", "x".repeat(5_000))).len() < 250);
        assert_eq!((cut(&"x".repeat(40)), cut(&"x".repeat(41))), ("x".repeat(40), format!("{}...", "x".repeat(40))));
    }

    #[test]
    fn a_file_has_a_name_that_can_be_shown_wherever_it_is() {
        assert!(check_file(Path::new("/srv/a\nb/ranker.onnx")).is_ok() && check_file(Path::new("/")).is_ok());
        let refused = check_file(Path::new("/srv/ran\u{1b}ker.onnx")).unwrap_err();
        assert!(
            refused.message().starts_with(r"the file's name: the control character \u{1b} after 3 characters"),
            "{}",
            refused.message()
        );
    }
}
