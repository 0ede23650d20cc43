//! The header of numpy's array files: whether raw bytes come after it, or a pickle. Invariant: what cannot be told is refused.

use super::dtype::{Dtype, short_form};

/// The first bytes.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header, in bytes: numpy itself refuses longer ones.
const HEADER_BYTES: u64 = 10_000;

/// The most fields of a structured type: a node of a tree has a dozen.
const MOST_FIELDS: usize = 255;

/// How many bytes say how long a header is.
pub(super) const LENGTH_AT: u64 = 12;

/// An array file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The data is a pickle.
    pub(super) is_pickle: bool,
    /// How many bytes raw data has.
    pub(super) bytes: u64,
}

/// How many bytes of the header come after the first [`LENGTH_AT`].
pub(super) fn rest_of_header(start: &[u8]) -> Result<u64, String> {
    let length = match start.strip_prefix(MAGIC) {
        Some([1, 0, low, high, ..]) => u64::from(u16::from_le_bytes([*low, *high])) + 10,
        Some([2 | 3, 0, a, b, c, d, ..]) => u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + 12,
        _ => 0,
    };
    length.checked_sub(LENGTH_AT).filter(|rest| *rest <= HEADER_BYTES).ok_or_else(broken)
}

fn broken() -> String {
    "the header of an array file is broken".to_owned()
}

/// Reads a header, which is all of `bytes`.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let text = match bytes.strip_prefix(MAGIC).ok_or_else(broken)? {
        [1, 0, _, _, text @ ..] | [2 | 3, 0, _, _, _, _, text @ ..] => text,
        _ => return Err(broken()),
    };
    let text = std::str::from_utf8(text).map_err(|_| broken())?;
    let other = || "the header of an array file is not as numpy writes it for a plain data type".to_owned();
    let (element, rest) = text.strip_prefix("{'descr': ").and_then(element).ok_or_else(other)?;
    // Whole, so that no second key can say something else.
    let rest = rest.strip_prefix(", 'fortran_order': ").unwrap_or_default();
    let rest = rest.strip_prefix("False").or_else(|| rest.strip_prefix("True")).unwrap_or_default();
    let shape = rest.strip_prefix(", 'shape': (").and_then(|rest| rest.trim_end().strip_suffix("), }")).ok_or_else(other)?;
    if !shape.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b' ')) {
        return Err(other());
    }
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let elements = sizes.map(|size| size.parse::<u64>().ok()).try_fold(1_u64, |product, size| product.checked_mul(size?));
    let bytes = elements.and_then(|elements| elements.checked_mul(element.bytes));
    Ok(Header {
        is_pickle: element.is_pickle,
        bytes: bytes.ok_or_else(|| format!("an array of the shape ({shape}) is larger than any file"))?,
    })
}

/// One element of an array, and what comes after its type: a form in quotes, or a list of fields.
fn element(text: &str) -> Option<(Header, &str)> {
    if let Some(fields) = text.strip_prefix('[') {
        return structure(fields);
    }
    let (form, rest) = quoted(text)?;
    let dtype = plain(form)?;
    Some((Header { is_pickle: dtype.is_object(), bytes: dtype.bytes }, rest))
}

/// The fields of an element: each is a name and a plain form, one after another, and what is skipped between two has no name and is `V`. Fields that are arrays or structured
/// in turn, with titles, or of objects (which numpy would not write with raw data) are not read.
fn structure(text: &str) -> Option<(Header, &str)> {
    let (mut bytes, mut rest) = (0_u64, text);
    for _ in 0..MOST_FIELDS {
        let (name, after) = quoted(rest.strip_prefix('(')?)?;
        let (form, after) = quoted(after.strip_prefix(", ")?)?;
        let dtype = plain(form)?;
        if dtype.is_object() || (name.is_empty() && !form.starts_with("|V")) {
            return None;
        }
        bytes = bytes.checked_add(dtype.bytes)?;
        let after = after.strip_prefix(')')?;
        if let Some(after) = after.strip_prefix(']') {
            return Some((Header { is_pickle: false, bytes }, after));
        }
        rest = after.strip_prefix(", ")?;
    }
    None
}

/// A text in quotes that has no escapes, and what comes after it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let (inner, rest) = text.strip_prefix('\'')?.split_once('\'')?;
    inner.chars().all(|letter| !letter.is_control() && letter != '\\').then_some((inner, rest))
}

/// A form without fields: `<f8`, `|O`, `<M8[ns]`.
fn plain(form: &str) -> Option<Dtype> {
    let form = form.strip_prefix(['<', '>', '|', '=']).unwrap_or(form);
    // The unit of a time.
    let form = if form.starts_with(['M', 'm']) { form.split('[').next().unwrap_or(form) } else { form };
    short_form(form.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&u16::try_from(text.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn tells_raw_arrays_from_pickled_ones() {
        let raw = header(&file("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }  \n"));
        assert_eq!(raw, Ok(Header { is_pickle: false, bytes: 24 }));
        let matrix = header(&file("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 5), }  \n"));
        assert_eq!(matrix, Ok(Header { is_pickle: false, bytes: 60 }));
        let number = header(&file("{'descr': '<f8', 'fortran_order': False, 'shape': (), }  \n"));
        assert_eq!(number, Ok(Header { is_pickle: false, bytes: 8 }));
        let time = header(&file("{'descr': '<M8[ns]', 'fortran_order': False, 'shape': (3,), }\n"));
        assert_eq!(time.map(|header| header.is_pickle), Ok(false));
        let pickled = header(&file("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n"));
        assert_eq!(pickled.map(|header| header.is_pickle), Ok(true));
    }

    #[test]
    fn elements_with_fields_are_raw() {
        let fields = |fields: &str| header(&file(&format!("{{'descr': [{fields}], 'fortran_order': False, 'shape': (3,), }}   \n")));
        // As numpy writes the nodes of scikit-learn's trees: the last field is what the compiler leaves empty.
        let node = "('left_child', '<i8'), ('threshold', '<f8'), ('missing_go_to_left', '|u1'), ('', '|V7')";
        assert_eq!(fields(node), Ok(Header { is_pickle: false, bytes: 72 }));
        assert_eq!(fields("('a', '<M8[ns]'), ('b', '<U3'), ('c', '|V4')").map(|header| header.bytes), Ok(72));
        let many = |count: usize| fields(&vec!["('a', '|u1')"; count].join(", "));
        assert_eq!(many(MOST_FIELDS).map(|header| header.bytes), Ok(3 * MOST_FIELDS as u64));
        assert!(many(MOST_FIELDS + 1).is_err());
        for odd in [
            "",
            "('a', '|O')",
            "('a', '<i8'), ('b', '|O8')",
            "('a', '<i8', (3,))",
            "('a', [('x', '<f4')])",
            "(('title', 'a'), '<i8')",
            "('', '<i8')",
            "('a', '<i8'),",
            "('a', '<i8') ",
            "('a', 'f8,O')",
            "('\\x61', '<i8')",
            "(\"a\", '<i8')",
            "('a', '<i8')], 'descr': [('a', '|O')",
            "('a', '|V1073741825')",
        ] {
            assert!(fields(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_tell() {
        for text in [
            "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (3,), }\n",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'descr': '|O'}\n",
            "{ 'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n",
            "{'descr': 'object', 'fortran_order': False, 'shape': (3,), }\n",
            "{'descr': '<f8''fortran_order': False, 'shape': (3,), }\n",
            "{'descr': '<f8', 'fortran_order': , 'shape': (3,), }\n",
        ] {
            assert!(header(&file(text)).is_err(), "{text}");
        }
        assert!(header(b"\x93NUMPY\x01").is_err());
    }
}
