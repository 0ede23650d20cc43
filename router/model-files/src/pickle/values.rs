//! What is known of the values that an unpickler would have: as much as is needed to judge what is done with them. Invariant: values hold
//! no values, so that none is as deep as the bytes say; contents are in the [`Heap`], which is bounded.

use super::dtype::Dtype;
use super::error::Fault;

/// The most elements of a tuple, and items of a dict, that are known.
const MOST_ITEMS: usize = 64;
/// The longest bytes whose contents are known.
const BYTES_KEPT: usize = 32;
/// The most values that a tuple may come to, counting a shared one as often as it is met: the hash of a tuple takes that long, each time.
const MOST_WEIGHT: u64 = 100_000_000;

/// A value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Nothing,
    Bool(bool),
    Int(i64),
    Number,
    /// A text that is known.
    Text(usize),
    /// One that is not.
    SomeText,
    /// Short bytes that are known.
    Bytes(usize),
    SomeBytes,
    /// A list; how many items it has is known.
    List(usize),
    Set,
    Tuple(usize),
    Dict(usize),
    /// A global of the list, by its number.
    Global(usize),
    /// What came of calling a global, or an instance of one.
    Made(usize),
    /// A data type of numpy.
    Dtype(usize),
    /// A storage of a torch archive.
    Storage,
    /// What came of something that was refused; whatever is done with it is not reported again.
    Refused,
}

/// A dict.
#[derive(Debug, Clone, Default)]
pub(super) struct Dict {
    items: Vec<(Value, Value)>,
    /// There are more items than that.
    pub(super) has_more: bool,
    /// A key that is not a text, or one that is not known.
    pub(super) has_odd_key: bool,
    /// A key like `__class__`.
    pub(super) special_key: Option<usize>,
    /// Something was judged by what it holds, and has it still.
    pub(super) is_frozen: bool,
}

impl Dict {
    /// The items, the newest last.
    pub(super) fn items(&self) -> &[(Value, Value)] {
        &self.items
    }
}

/// The most tuples in each other: Python's hash of one goes down all of them on its own stack.
const MOST_DEPTH: u32 = 500;

/// A tuple.
#[derive(Debug, Clone)]
struct Tuple {
    /// None where there are more than are kept.
    elements: Option<Box<[Value]>>,
    weight: u64,
    depth: u32,
}

/// Contents of values.
#[derive(Debug, Clone, Default)]
pub(super) struct Heap {
    texts: Vec<Box<[u8]>>,
    /// How many items each list has.
    lists: Vec<u64>,
    tuples: Vec<Tuple>,
    dicts: Vec<Dict>,
    dtypes: Vec<Dtype>,
    kept: u64,
    limit: u64,
}

impl Heap {
    pub(super) fn new(limit: u64) -> Heap {
        Heap { limit, ..Heap::default() }
    }

    /// What it holds, in bytes.
    pub(super) fn kept(&self) -> u64 {
        self.kept
    }

    pub(super) fn new_text(&mut self, text: &str) -> Result<Value, Fault> {
        self.keep(text.len() + 24)?;
        self.texts.push(text.as_bytes().into());
        Ok(Value::Text(self.texts.len() - 1))
    }

    pub(super) fn new_bytes(&mut self, bytes: &[u8]) -> Result<Value, Fault> {
        if bytes.len() > BYTES_KEPT {
            return Ok(Value::SomeBytes);
        }
        self.keep(bytes.len() + 24)?;
        self.texts.push(bytes.into());
        Ok(Value::Bytes(self.texts.len() - 1))
    }

    pub(super) fn new_list(&mut self, items: usize) -> Result<Value, Fault> {
        self.keep(size_of::<u64>())?;
        self.lists.push(items as u64);
        Ok(Value::List(self.lists.len() - 1))
    }

    pub(super) fn new_tuple(&mut self, elements: &[Value]) -> Result<Value, Fault> {
        let (mut weight, mut depth) = (1_u64, 0);
        for element in elements {
            let inner = if let Value::Tuple(id) = element { self.tuples.get(*id) } else { None };
            weight = weight.saturating_add(inner.map_or(1, |tuple| tuple.weight));
            depth = depth.max(inner.map_or(0, |tuple| tuple.depth + 1));
        }
        if depth > MOST_DEPTH {
            return Err(Fault::Limit { what: "tuples in each other", limit: u64::from(MOST_DEPTH) });
        }
        if weight > MOST_WEIGHT {
            return Err(Fault::Limit { what: "values in a tuple, shared ones counted each time", limit: MOST_WEIGHT });
        }
        let kept = Some(elements).filter(|elements| elements.len() <= MOST_ITEMS);
        self.keep(kept.map_or(0, size_of_val) + size_of::<Tuple>())?;
        self.tuples.push(Tuple { elements: kept.map(Into::into), weight, depth });
        Ok(Value::Tuple(self.tuples.len() - 1))
    }

    pub(super) fn new_dict(&mut self) -> Result<Value, Fault> {
        self.keep(size_of::<Dict>())?;
        self.dicts.push(Dict::default());
        Ok(Value::Dict(self.dicts.len() - 1))
    }

    pub(super) fn new_dtype(&mut self, dtype: Dtype) -> Result<Value, Fault> {
        self.keep(size_of::<Dtype>())?;
        self.dtypes.push(dtype);
        Ok(Value::Dtype(self.dtypes.len() - 1))
    }

    /// The text of a value, if it is one and known.
    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match value {
            Value::Text(id) => std::str::from_utf8(self.texts.get(id)?).ok(),
            _ => None,
        }
    }

    /// The text or the bytes of a value, if they are known.
    pub(super) fn text_or_bytes(&self, value: Value) -> Option<&[u8]> {
        match value {
            Value::Text(id) | Value::Bytes(id) => self.texts.get(id).map(AsRef::as_ref),
            _ => None,
        }
    }

    /// How many items a value has by now, if it is a list.
    pub(super) fn list_items(&self, value: Value) -> Option<u64> {
        match value {
            Value::List(id) => self.lists.get(id).copied(),
            _ => None,
        }
    }

    /// Counts items that are appended to a list; nothing happens where it is none.
    pub(super) fn extend_list(&mut self, list: Value, items: usize) {
        if let Value::List(id) = list
            && let Some(length) = self.lists.get_mut(id)
        {
            *length = length.saturating_add(items as u64);
        }
    }

    /// The elements of a value, if it is a tuple and known.
    pub(super) fn tuple(&self, value: Value) -> Option<&[Value]> {
        match value {
            Value::Tuple(id) => self.tuples.get(id)?.elements.as_deref(),
            _ => None,
        }
    }

    pub(super) fn dict(&self, value: Value) -> Option<&Dict> {
        match value {
            Value::Dict(id) => self.dicts.get(id),
            _ => None,
        }
    }

    /// What a text key of a dict has; none if it is not there or not all of the dict is known.
    pub(super) fn item(&self, dict: Value, key: &str) -> Option<Value> {
        let dict = self.dict(dict).filter(|dict| !dict.has_more && !dict.has_odd_key)?;
        dict.items.iter().rev().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    /// Lets a dict be as it is.
    pub(super) fn freeze(&mut self, dict: Value) {
        if let Value::Dict(id) = dict
            && let Some(dict) = self.dicts.get_mut(id)
        {
            dict.is_frozen = true;
        }
    }

    pub(super) fn dtype(&self, value: Value) -> Option<&Dtype> {
        match value {
            Value::Dtype(id) => self.dtypes.get(id),
            _ => None,
        }
    }

    pub(super) fn dtype_mut(&mut self, value: Value) -> Option<&mut Dtype> {
        match value {
            Value::Dtype(id) => self.dtypes.get_mut(id),
            _ => None,
        }
    }

    /// Puts an item in a dict; nothing happens where it is none.
    pub(super) fn set_item(&mut self, dict: Value, key: Value, value: Value) -> Result<(), Fault> {
        let Value::Dict(id) = dict else { return Ok(()) };
        let is_special = self.text(key).is_some_and(|key| key.len() > 4 && key.starts_with("__") && key.ends_with("__"));
        if self.dicts.get(id).is_some_and(|dict| dict.items.len() < MOST_ITEMS) {
            self.keep(size_of::<(Value, Value)>())?;
        }
        let Some(dict) = self.dicts.get_mut(id) else { return Ok(()) };
        match key {
            Value::Text(text) if is_special => dict.special_key = Some(text),
            Value::Text(_) => {}
            _ => dict.has_odd_key = true,
        }
        if dict.items.len() < MOST_ITEMS {
            dict.items.push((key, value));
        } else {
            dict.has_more = true;
        }
        Ok(())
    }

    fn keep(&mut self, bytes: usize) -> Result<(), Fault> {
        self.kept = self.kept.saturating_add(bytes as u64);
        if self.kept > self.limit {
            return Err(Fault::Limit { what: "bytes of texts, lists, tuples and dicts", limit: self.limit });
        }
        Ok(())
    }
}
