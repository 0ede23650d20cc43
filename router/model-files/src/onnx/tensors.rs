//! A tensor's type, size and data, which must agree; and its numbers, which must be finite where they score.

use super::super::error::{Malformed, shown};
use super::proto::{Entry, Sparse, Tensor};

/// Dimensions of a tensor.
const MOST_DIMS: usize = 64;
/// How [`Malformed::what`] begins for a tensor whose data is elsewhere.
pub const OTHER_FILE: &str = "its data is in another file";
/// `TensorProto.DataLocation.EXTERNAL`.
const EXTERNAL: i32 = 1;

/// Which numbers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Only finite ones.
    Finite,
    /// Infinite ones too: what masks out and what bounds.
    NotNan,
    /// All. What is missing is written as NaN.
    Any,
}

impl Numbers {
    pub(super) fn takes(self, number: f64) -> bool {
        match self {
            Numbers::Finite => number.is_finite(),
            Numbers::NotNan => !number.is_nan(),
            Numbers::Any => true,
        }
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Numbers::Finite => "must be a finite number",
            Numbers::NotNan | Numbers::Any => "must be a number, or infinite",
        }
    }
}

/// How a type of elements is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Float,
    Int32,
    Int64,
    Double,
    Uint64,
    Text,
}

/// An element's type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element {
    /// As numpy names it; ml_dtypes where numpy has none.
    pub(super) name: &'static str,
    /// Of one number; a complex one is two.
    bits: usize,
    pub(super) store: Store,
    numbers: usize,
}

/// By `TensorProto.DataType`.
pub(super) fn element(data_type: Option<i32>) -> Option<Element> {
    let (name, bits, store) = match data_type? {
        1 => ("float32", 32, Store::Float),
        2 => ("uint8", 8, Store::Int32),
        3 => ("int8", 8, Store::Int32),
        4 => ("uint16", 16, Store::Int32),
        5 => ("int16", 16, Store::Int32),
        6 => ("int32", 32, Store::Int32),
        7 => ("int64", 64, Store::Int64),
        8 => ("string", 0, Store::Text),
        9 => ("bool", 8, Store::Int32),
        10 => ("float16", 16, Store::Int32),
        11 => ("float64", 64, Store::Double),
        12 => ("uint32", 32, Store::Uint64),
        13 => ("uint64", 64, Store::Uint64),
        14 => ("complex64", 32, Store::Float),
        15 => ("complex128", 64, Store::Double),
        16 => ("bfloat16", 16, Store::Int32),
        17 => ("float8_e4m3fn", 8, Store::Int32),
        18 => ("float8_e4m3fnuz", 8, Store::Int32),
        19 => ("float8_e5m2", 8, Store::Int32),
        20 => ("float8_e5m2fnuz", 8, Store::Int32),
        21 => ("uint4", 4, Store::Int32),
        22 => ("int4", 4, Store::Int32),
        23 => ("float4_e2m1fn", 4, Store::Int32),
        24 => ("float8_e8m0fnu", 8, Store::Int32),
        25 => ("uint2", 2, Store::Int32),
        26 => ("int2", 2, Store::Int32),
        27 => ("float6_e2m3fn", 6, Store::Int32),
        28 => ("float6_e3m2fn", 6, Store::Int32),
        _ => return None,
    };
    Some(Element { name, bits, store, numbers: if name.starts_with("complex") { 2 } else { 1 } })
}

/// The product of dimensions; none that is below 0, and none that overflows.
pub(super) fn product(dims: &[i64]) -> Option<u64> {
    dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(u64::try_from(*dim).ok()?))
}

/// Checks a tensor. Gives how many elements it has.
pub(super) fn check(tensor: &Tensor, take: Numbers) -> Result<u64, Malformed> {
    let place = format!("tensor {}", shown(tensor.name.as_deref().unwrap_or_default()));
    check_where(tensor, &place)?;
    let Some(element) = element(tensor.data_type) else {
        return Err(Malformed::new(place, format!("its data type {} is none that ONNX has", tensor.data_type.unwrap_or(0))));
    };
    let count = product(&tensor.dims).filter(|_| tensor.dims.len() <= MOST_DIMS);
    let Some(count) = count else {
        let dims: Vec<i64> = tensor.dims.iter().copied().take(MOST_DIMS).collect();
        return Err(Malformed::new(place, format!("its dimensions {dims:?} are none that a tensor can have")));
    };
    check_size(tensor, element, count, &place)?;
    let wrong = if take == Numbers::Any { None } else { super::floats::position(tensor, |number| !take.takes(number)) };
    match wrong {
        Some(index) => Err(Malformed::new(format!("{place}[{index}]"), take.what())),
        None => Ok(count),
    }
}

/// An artefact is one file.
fn check_where(tensor: &Tensor, place: &str) -> Result<(), Malformed> {
    if tensor.data_location == Some(EXTERNAL) || !tensor.external_data.is_empty() {
        let is_location = |entry: &&Entry| entry.key.as_deref() == Some("location");
        let location = tensor.external_data.iter().find(is_location).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
        let what = format!("{OTHER_FILE}, {}: a model must be one file, with its tensors inside", shown(location));
        return Err(Malformed::new(place, what));
    }
    if tensor.data_location.is_some_and(|location| location != 0) {
        return Err(Malformed::new(place, "its data_location is none that ONNX has"));
    }
    match tensor.segment {
        Some(_) => Err(Malformed::new(place, "is stored in segments, which no runtime reads")),
        None => Ok(()),
    }
}

/// The data is in one place, and as much of it as the dimensions say.
fn check_size(tensor: &Tensor, element: Element, count: u64, place: &str) -> Result<(), Malformed> {
    let lists = [
        (Store::Float, tensor.float_data.len()),
        (Store::Int32, tensor.int32_data.len()),
        (Store::Int64, tensor.int64_data.len()),
        (Store::Double, tensor.double_data.len()),
        (Store::Uint64, tensor.uint64_data.len()),
        (Store::Text, tensor.string_data.len()),
    ];
    if let Some((other, _)) = lists.iter().find(|(store, length)| *length > 0 && (*store != element.store || tensor.raw_data.is_some())) {
        return Err(Malformed::new(place, format!("is {}, and has data as {other:?} where it must not", element.name)));
    }
    let numbers = u64::try_from(element.numbers).ok().and_then(|numbers| count.checked_mul(numbers));
    let (found, wanted) = match &tensor.raw_data {
        Some(_) if element.store == Store::Text => return Err(Malformed::new(place, "is text, and has raw data")),
        Some(raw) => (raw.len(), numbers.and_then(|numbers| packed(numbers, element.bits, 8))),
        None => {
            let found = lists.iter().find(|(store, _)| *store == element.store).map_or(0, |(_, length)| *length);
            // Numbers of 4 and 2 bits are packed into those of 32, a byte's worth in each; those of 6 bits are not.
            let wanted = if matches!(element.bits, 2 | 4) { numbers.and_then(|numbers| packed(numbers, element.bits, 8)) } else { numbers };
            (found, wanted)
        }
    };
    if wanted.is_some_and(|wanted| u64::try_from(found) == Ok(wanted)) {
        return Ok(());
    }
    let unit = if tensor.raw_data.is_some() { "bytes" } else { "values" };
    let wanted = wanted.map_or_else(|| "more than there can be".to_owned(), |wanted| wanted.to_string());
    let what = format!("has {found} {unit} of data: must be {wanted}, for {} {:?}", element.name, tensor.dims);
    Err(Malformed::new(place, what))
}

/// Units of `unit` bits that hold so many numbers.
fn packed(numbers: u64, bits: usize, unit: u64) -> Option<u64> {
    Some(numbers.checked_mul(u64::try_from(bits).ok()?)?.div_ceil(unit))
}

/// Checks a sparse tensor. A runtime makes a dense one of it, whose size only its dimensions limit.
pub(super) fn check_sparse(sparse: &Sparse, take: Numbers, most: u64) -> Result<u64, Malformed> {
    let (Some(values), Some(indices)) = (&sparse.values, &sparse.indices) else {
        return Err(Malformed::new("a sparse tensor", "has no values or no indices"));
    };
    let count = check(values, take)?;
    check(indices, Numbers::Any)?;
    let place = format!("sparse tensor {}", shown(values.name.as_deref().unwrap_or_default()));
    match product(&sparse.dims) {
        Some(dense) if dense <= most && count <= dense => Ok(count),
        _ => Err(Malformed::new(
            place,
            format!(
                "its dimensions {:?} hold {count} values: must be at most {most}, and no fewer",
                sparse.dims.iter().take(8).collect::<Vec<_>>()
            ),
        )),
    }
}
