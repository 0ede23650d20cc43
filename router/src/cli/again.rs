//! Options that a command was given, for the command that goes on with what it began.

use std::ffi::OsStr;

/// ` --name value`, as a shell reads it. Nothing where there is no value, or where the environment has it and says it again.
pub(super) fn option(name: &str, value: Option<&OsStr>, variable: Option<&str>) -> String {
    let Some(value) = value else { return String::new() };
    if variable.and_then(std::env::var_os).is_some_and(|given| given == value) {
        return String::new();
    }
    format!(" --{name} {}", quoted(&value.to_string_lossy()))
}

fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.:_-@,+=%".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_given() {
        let said = |value: &str| option("config", Some(OsStr::new(value)), Some("SWITCHBACK_NO_SUCH_VARIABLE"));
        assert_eq!(said("/etc/switchback/a.toml"), " --config /etc/switchback/a.toml");
        assert_eq!((said("my file"), said("it's")), (" --config 'my file'".to_owned(), r" --config 'it'\''s'".to_owned()));
        assert_eq!(option("config", None, None), "");
        let home = std::env::var_os("PATH");
        assert_eq!(option("path", home.as_deref(), Some("PATH")), "", "the environment says it");
    }
}
