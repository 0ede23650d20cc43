//! The header of numpy's array files: whether raw bytes come after it, or a pickle. Invariant: what cannot be told is refused.

use super::dtype::short_form;

/// The first bytes.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header, in bytes: numpy itself refuses longer ones.
const HEADER_BYTES: u64 = 10_000;

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
    let (form, rest) = text.strip_prefix("{'descr': '").and_then(|text| text.split_once("', 'fortran_order': ")).ok_or_else(other)?;
    // Whole, so that no second key can say something else.
    let rest = rest.strip_prefix("False").or_else(|| rest.strip_prefix("True")).unwrap_or_default();
    let shape = rest.strip_prefix(", 'shape': (").and_then(|rest| rest.trim_end().strip_suffix("), }")).ok_or_else(other)?;
    if !shape.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b' ')) {
        return Err(other());
    }
    let form = form.strip_prefix(['<', '>', '|', '=']).unwrap_or(form);
    // The unit of a time.
    let plain = if form.starts_with(['M', 'm']) { form.split('[').next().unwrap_or(form) } else { form };
    let dtype = short_form(plain.as_bytes()).ok_or_else(other)?;
    let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
    let elements = sizes.map(|size| size.parse::<u64>().ok()).try_fold(1_u64, |product, size| product.checked_mul(size?));
    let bytes = elements.and_then(|elements| elements.checked_mul(dtype.bytes));
    Ok(Header {
        is_pickle: dtype.is_object(),
        bytes: bytes.ok_or_else(|| format!("an array of the shape ({shape}) is larger than any file"))?,
    })
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
    fn refuses_what_it_cannot_tell() {
        for text in [
            "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (3,), }\n",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'descr': '|O'}\n",
            "{ 'descr': '|O', 'fortran_order': False, 'shape': (3,), }\n",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n",
            "{'descr': 'object', 'fortran_order': False, 'shape': (3,), }\n",
        ] {
            assert!(header(&file(text)).is_err(), "{text}");
        }
        assert!(header(b"\x93NUMPY\x01").is_err());
    }
}
