//! Data types of numpy. What one says decides how raw bytes are read, and one that lies about holding objects would make pointers of them.
//! Invariant: a type is either known to hold objects or known not to; everything else is refused.

use super::error::Fault;
use super::values::{Heap, Value};

/// Flags of numpy's types: elements are references, are pickled as a list, are pointers.
const OBJECT_FLAGS: i64 = 0x01 | 0x02 | 0x04;
/// All flags of the type `object`.
const ALL_OBJECT_FLAGS: i64 = 63;
/// The largest element, in bytes.
const MOST_BYTES: u64 = 1 << 30;

/// A data type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dtype {
    kind: u8,
    /// Bytes of an element.
    pub(super) bytes: u64,
    /// It got its state, or was used: it does not change any more.
    is_settled: bool,
}

impl Dtype {
    /// Whether elements are Python objects.
    pub(super) fn is_object(self) -> bool {
        self.kind == b'O'
    }

    /// It is used from now on: a state that comes later would change what was judged.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
    }
}

/// The type of a short form, like `f8` or `U12`, without byte order.
pub(super) fn short_form(text: &[u8]) -> Option<Dtype> {
    let (kind, digits) = text.split_first()?;
    if !digits.iter().all(u8::is_ascii_digit) || digits.len() > 9 {
        return None;
    }
    let number: Option<u64> = std::str::from_utf8(digits).ok()?.parse().ok();
    let bytes = match (kind, number) {
        (b'b', Some(1)) => 1,
        (b'i' | b'u', Some(size @ (1 | 2 | 4 | 8))) => size,
        (b'f', Some(size @ (2 | 4 | 8 | 12 | 16))) => size,
        (b'c', Some(size @ (8 | 16 | 24 | 32))) => size,
        (b'M' | b'm', None | Some(8)) => 8,
        (b'O', None | Some(8 | 4)) => 8,
        (b'S' | b'V', Some(size)) => size,
        (b'U', Some(letters)) => letters.checked_mul(4)?,
        _ => return None,
    };
    (bytes <= MOST_BYTES).then_some(Dtype { kind: *kind, bytes, is_settled: false })
}

/// What `numpy.dtype(...)` makes of its arguments: a short form, False, True. With a third that is not true it would be numpy's own type,
/// and its state would change it for everybody.
pub(super) fn called(heap: &Heap, args: &[Value]) -> Result<Dtype, String> {
    let [form, align, copy] = args else { return Err("numpy.dtype with other arguments than its pickles have".to_owned()) };
    let is_plain = matches!(align, Value::Bool(false) | Value::Int(0)) && matches!(copy, Value::Bool(true) | Value::Int(1));
    let known = heap.text_or_bytes(*form).and_then(short_form);
    known.filter(|_| is_plain).ok_or_else(|| "numpy.dtype with other arguments than its pickles have".to_owned())
}

/// Gives a type its state.
pub(super) fn build(heap: &mut Heap, target: Value, state: Value) -> Result<(), String> {
    let dtype = *heap.dtype(target).ok_or_else(unknown)?;
    if dtype.is_settled {
        return Err("changes a data type of numpy that was built or used before".to_owned());
    }
    let state = heap.tuple(state).ok_or_else(unknown)?;
    let (Value::Int(version), [order, subtype, names, fields, bytes, alignment, flags, more @ ..]) =
        state.split_first().map(|(version, rest)| (*version, rest)).ok_or_else(unknown)?
    else {
        return Err(unknown());
    };
    let has_order = matches!(heap.text_or_bytes(*order), Some(b"<" | b">" | b"|" | b"="));
    let (Value::Int(bytes), Value::Int(alignment), Value::Int(flags)) = (*bytes, *alignment, *flags) else { return Err(unknown()) };
    let has_time = matches!((version, more.len(), dtype.kind), (4, 1, b'M' | b'm')) && time_unit(heap, more);
    let is_version = (version == 3 && more.is_empty()) || has_time;
    let has_bytes = match dtype.kind {
        b'S' | b'U' | b'V' => u64::try_from(bytes) == Ok(dtype.bytes),
        _ => bytes == -1,
    };
    let has_flags = if dtype.is_object() { flags == ALL_OBJECT_FLAGS } else { flags & OBJECT_FLAGS == 0 };
    let has_fields = match (*names, *fields) {
        (Value::Nothing, Value::Nothing) => true,
        (names, fields) => dtype.kind == b'V' && are_fields(heap, dtype.bytes, names, fields),
    };
    let is_good = has_order && is_version && has_bytes && has_flags && has_fields && (-1..=64).contains(&alignment);
    if !is_good || *subtype != Value::Nothing {
        return Err(unknown());
    }
    let fields = *fields;
    if let Some(dtype) = heap.dtype_mut(target) {
        dtype.settle();
    }
    // Numpy keeps the dict itself, not a copy.
    heap.freeze(fields);
    Ok(())
}

fn unknown() -> String {
    "gives a data type of numpy a state that says something else than its name, or has objects in fields".to_owned()
}

/// The unit of a time: `(None or {}, (b"ns", 1, 1, 1))`.
fn time_unit(heap: &Heap, more: &[Value]) -> bool {
    let Some([_, unit]) = more.first().and_then(|pair| heap.tuple(*pair)) else { return false };
    let Some([name, numbers @ ..]) = heap.tuple(*unit) else { return false };
    let is_name = heap.text_or_bytes(*name).is_some_and(|name| name.len() <= 8);
    is_name && numbers.len() <= 4 && numbers.iter().all(|number| matches!(number, Value::Int(_)))
}

/// Whether fields are the names' and inside the element, and none holds objects.
fn are_fields(heap: &Heap, bytes: u64, names: Value, fields: Value) -> bool {
    let (Some(names), Some(dict)) = (heap.tuple(names), heap.dict(fields)) else { return false };
    let is_whole = !dict.has_more && !dict.has_odd_key && dict.items().len() == names.len();
    is_whole
        && names.iter().all(|name| {
            let field = heap.text(*name).and_then(|name| heap.item(fields, name)).and_then(|field| heap.tuple(field));
            let Some([dtype, Value::Int(offset)]) = field else { return false };
            let (Some(dtype), Ok(offset)) = (heap.dtype(*dtype), u64::try_from(*offset)) else { return false };
            // One that is not settled could become something else after this.
            !dtype.is_object() && dtype.is_settled && offset.checked_add(dtype.bytes).is_some_and(|end| end <= bytes)
        })
}

/// How many elements an array of this shape has; none where it is not a tuple of known numbers, as numpy writes it, or larger than any array.
pub(super) fn elements(heap: &Heap, shape: Value) -> Option<u64> {
    heap.tuple(shape)?.iter().try_fold(1_u64, |product, size| match size {
        Value::Int(size) => product.checked_mul(u64::try_from(*size).ok()?),
        _ => None,
    })
}

/// Bytes of an array of this shape.
pub(super) fn array_bytes(heap: &Heap, shape: Value, dtype: Dtype) -> Result<u64, Fault> {
    let shape = heap.tuple(shape).ok_or_else(|| Fault::broken("the shape of an array cannot be told"))?;
    let mut bytes = dtype.bytes;
    for size in shape {
        let Value::Int(size) = size else { return Err(Fault::broken("the shape of an array cannot be told")) };
        let size = u64::try_from(*size).map_err(|_| Fault::broken("the shape of an array is negative"))?;
        bytes = bytes.checked_mul(size).filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(|| Fault::broken("an array is too large"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_those_that_numpy_writes() {
        assert_eq!(short_form(b"f8").map(|dtype| dtype.bytes), Some(8));
        assert_eq!(short_form(b"U3").map(|dtype| dtype.bytes), Some(12));
        assert!(short_form(b"O8").is_some_and(Dtype::is_object));
        for odd in [&b""[..], b"f", b"f3", b"i8,O", b"V99999999999", b"<f8", b"object", b"S-1"] {
            assert_eq!(short_form(odd), None, "{odd:?}");
        }
    }
}
