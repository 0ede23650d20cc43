//! What a file is, as its name and its first bytes say.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::error::RegistryError;
use super::manifest::Format;

/// So much is looked at.
const HEAD_BYTES: u64 = 4_096;

/// What a file looks like; `None` where that cannot be told. It may be something else all the same: validation tells.
///
/// # Errors
/// [`RegistryError::File`].
pub fn format_of(path: &Path) -> Result<Option<Format>, RegistryError> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
    read.map_err(|source| RegistryError::File { path: path.to_owned(), what: "read it", source })?;
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    Ok(guess(extension.as_deref().unwrap_or_default(), &head))
}

fn guess(extension: &str, head: &[u8]) -> Option<Format> {
    let text = head.trim_ascii_start();
    let format = match extension {
        "onnx" => Format::Onnx,
        "pkl" | "pickle" | "joblib" | "pt" | "pth" | "npy" | "npz" => Format::Pickle,
        "ubj" => Format::XgBoost,
        // LightGBM's text begins with the word tree, or with a version of its own.
        _ if text.starts_with(b"tree\n") || text.starts_with(b"tree\r\n") => Format::LightGbm,
        // Its binary form, too, which is then refused with what to do instead.
        _ if text.starts_with(b"{") && head.windows(7).any(|part| part == b"learner") => Format::XgBoost,
        // A pickle of protocol 2 and later says so.
        _ if matches!(head, [0x80, 2..=5, ..]) => Format::Pickle,
        _ => return None,
    };
    Some(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        assert_eq!(guess("onnx", b""), Some(Format::Onnx));
        assert_eq!(guess("joblib", b"x"), Some(Format::Pickle));
        assert_eq!(guess("txt", b"tree\nversion=v4\n"), Some(Format::LightGbm));
        assert_eq!(guess("json", b"{\"learner\": {}}"), Some(Format::XgBoost));
        assert_eq!(guess("bin", b"\x80\x04\x95"), Some(Format::Pickle));
        assert_eq!(guess("json", b"{L\0\0\0\x07learner"), Some(Format::XgBoost));
        assert_eq!(guess("npz", b"PK"), Some(Format::Pickle));
        assert_eq!(guess("json", b"{}"), None);
    }
}
