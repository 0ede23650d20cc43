//! What a file is, as its name and its first bytes say.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::error::RegistryError;
use super::manifest::Format;

/// So much is looked at.
const HEAD_BYTES: u64 = 4_096;
/// So much of what may be a pickle: the largest block of a compressor is in it.
const PICKLE_BYTES: u64 = 5 << 20;
/// So much of the end of an archive, where its last entries are listed.
const TAIL_BYTES: u64 = 512;
/// The entry that skops writes last, and how long its name is.
const SKOPS: &[u8] = b"schema.json";
/// How long an entry's header in the list at the end of an archive is, and where it has the length of the name.
const LISTED_BYTES: usize = 46;
const NAME_LENGTH_AT: usize = 28;

/// What a file looks like; `None` where that cannot be told. It may be something else all the same: validation tells.
///
/// # Errors
/// [`RegistryError::File`].
pub fn format_of(path: &Path) -> Result<Option<Format>, RegistryError> {
    let failed = |source| RegistryError::File { path: path.to_owned(), what: "read it", source };
    let mut file = File::open(path).map_err(failed)?;
    let mut head = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(failed)?;
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    if let Some(format) = guess(extension.as_deref().unwrap_or_default(), &head) {
        return Ok(Some(format));
    }
    if head.starts_with(b"PK\x03\x04") {
        let (mut tail, bytes) = (Vec::new(), file.seek(SeekFrom::End(0)).map_err(failed)?);
        file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES))).map_err(failed)?;
        file.by_ref().take(TAIL_BYTES).read_to_end(&mut tail).map_err(failed)?;
        if is_skops(&tail) {
            return Ok(Some(Format::Opaque));
        }
        file.seek(SeekFrom::Start(head.len() as u64)).map_err(failed)?;
    }
    // Named as no pickle: compressed ones, and those of the first protocols, which do not say that they are.
    file.take(PICKLE_BYTES).read_to_end(&mut head).map_err(failed)?;
    Ok(model_files::pickle::is_pickle(&head).then_some(Format::Pickle))
}

/// Whether an archive that ends with these bytes is one of skops: it says in a text what it makes, and has arrays before it.
fn is_skops(tail: &[u8]) -> bool {
    let length = u16::try_from(SKOPS.len()).unwrap_or_default().to_le_bytes();
    tail.windows(LISTED_BYTES + SKOPS.len()).any(|listed| {
        let is_as_long = listed.get(NAME_LENGTH_AT..).is_some_and(|rest| rest.starts_with(&length));
        is_as_long && listed.starts_with(b"PK\x01\x02") && listed.ends_with(SKOPS)
    })
}

fn guess(extension: &str, head: &[u8]) -> Option<Format> {
    let text = head.trim_ascii_start();
    let format = match extension {
        "onnx" => Format::Onnx,
        "pkl" | "pickle" | "joblib" | "pt" | "pth" | "npy" | "npz" => Format::Pickle,
        "ubj" => Format::XgBoost,
        "skops" => Format::Opaque,
        // LightGBM's text begins with the word tree, or with a version of its own.
        _ if text.starts_with(b"tree\n") || text.starts_with(b"tree\r\n") => Format::LightGbm,
        // Its binary form, too, which is then refused with what to do instead.
        _ if text.starts_with(b"{") && head.windows(7).any(|part| part == b"learner") => Format::XgBoost,
        // A pickle of protocol 2 and later says so; so does the length of the head of a safetensors file.
        _ if matches!(head, [0x80, 2..=5, ..]) && !is_safetensors(head) => Format::Pickle,
        _ => return None,
    };
    Some(format)
}

/// How long its head is, and the head, which is JSON.
fn is_safetensors(head: &[u8]) -> bool {
    matches!(head, [_, _, _, _, _, 0, 0, 0, b'{', ..])
}

/// What the first bytes of a file that was said to be a pickle look like, in words; `None` where that cannot be told.
#[must_use]
pub fn looks_like(head: &[u8]) -> Option<&'static str> {
    const BEGINNINGS: [(&[u8], &str); 6] = [
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"GGUF", "a GGUF file"),
        (b"\x7fELF", "a program"),
        (b"%PDF", "a PDF"),
        (b"\x89PNG", "an image"),
        (b"<", "HTML or XML"),
    ];
    let head = head.get(..4_096).unwrap_or(head);
    match guess("", head) {
        Some(Format::LightGbm) => return Some("a LightGBM model: --format lightgbm"),
        Some(Format::XgBoost) => return Some("an XGBoost model: --format xgboost"),
        _ => {}
    }
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| head.starts_with(beginning)) {
        return Some(what);
    }
    let head = head.get(..256).unwrap_or(head);
    let is_text = head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
    match (head, head.trim_ascii_start()) {
        // Its first field is the form of the file, a small number; then come texts, or fields of one.
        ([0x08, 1..=32, 0x12 | 0x1a | 0x22 | 0x2a | 0x32 | 0x3a, ..], _) => Some("an ONNX model: --format onnx"),
        _ if is_safetensors(head) => Some("a safetensors file"),
        (_, [b'{' | b'[', ..]) if is_text => Some("JSON"),
        _ => (is_text && !head.is_empty()).then_some("plain text"),
    }
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
        assert_eq!(guess("skops", b"PK"), Some(Format::Opaque));
        assert_eq!(guess("safetensors", b"\x80\x02\0\0\0\0\0\0{\"w\""), None);
    }

    #[test]
    fn an_archive_of_skops_is_told_by_its_last_entry() {
        // An array first, as skops and numpy both write it.
        let listed = |name: &[u8]| {
            let mut bytes = [&b"PK\x03\x04"[..], &[0; 22], &[5, 0, 0, 0], b"7.npy", &[0; 6_000], b"PK\x01\x02"].concat();
            bytes.extend_from_slice(&[0; 24]);
            bytes.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&[0; 16]);
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(b"PK\x05\x06");
            bytes
        };
        assert!(is_skops(&listed(b"schema.json")));
        assert!(!is_skops(&listed(b"schema.json.npy")) && !is_skops(&listed(b"w.npy")) && !is_skops(b"schema.json") && !is_skops(b""));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.bin");
        for (last, format) in [(&b"schema.json"[..], Format::Opaque), (b"w.npy", Format::Pickle)] {
            std::fs::write(&file, listed(last)).unwrap();
            assert_eq!(format_of(&file).unwrap(), Some(format));
        }
    }

    #[test]
    fn what_is_no_pickle_is_told_by_its_looks() {
        for (head, says) in [
            (&b"tree\nversion=v4\n"[..], Some("a LightGBM model: --format lightgbm")),
            (b"\x08\x08\x12\x07skl2onnx", Some("an ONNX model: --format onnx")),
            (b"\x40\0\0\0\0\0\0\0{\"a\"", Some("a safetensors file")),
            (b"\x89HDF\r\n\x1a\n", Some("an HDF5 file")),
            (b" {\"weights\": []}", Some("JSON")),
            (b"see the other folder\n", Some("plain text")),
            (b"\x80\x04\x95\x01", None),
            (b"\xff\xfe\x00", None),
            (b"", None),
        ] {
            assert_eq!(looks_like(head), says, "{head:?}");
        }
    }
}
