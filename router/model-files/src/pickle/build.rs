//! BUILD: an object gets its state. Invariant: only an instance gets one, never a class, and never by attributes that Python itself looks
//! at.

use super::allowed::{Rule, Use};
use super::dtype;
use super::error::{Fault, shown};
use super::generators;
use super::machine::{Machine, Reader, Step};
use super::report::Report;
use super::values::Value;

/// What joblib 1.1 and later align arrays to. Older ones wrote arrays without a length in front of them, which a plain unpickler would take
/// for opcodes.
const ALIGNMENT: i64 = 16;

impl Machine<'_> {
    pub(super) fn build(&mut self, report: &mut Report) -> Result<Step, Fault> {
        let (state, target) = (self.pop()?, self.top()?);
        if state == Value::Refused || target == Value::Refused {
            return Ok(Step::Next);
        }
        let Value::Made(global) = target else {
            let refusal = match target {
                Value::Dtype(_) => dtype::build(&mut self.heap, target, state).err(),
                _ => Some(format!("gives a state to {}", self.described(target, report))),
            };
            if let Some(why) = refusal {
                report.refuse(why);
            }
            return Ok(Step::Next);
        };
        let refusal = match report.uses(global) {
            Some(Use::Trusted) => None,
            Some(Use::Own) => self.own_state(state),
            Some(Use::Checked(Rule::Random)) => self.random_state(state),
            Some(Use::New | Use::Items | Use::Mapping | Use::Checked(Rule::Arrays)) => self.dict_state(state),
            Some(Use::Checked(Rule::NoFunctions)) => self.dict_state(state).or_else(|| self.functions(state)),
            Some(Use::Checked(Rule::Texts)) => self.dict_state(state).or_else(|| self.texts(state)),
            Some(Use::Checked(Rule::Ndarray)) => self.array_state(state, report),
            Some(Use::Checked(Rule::Wrapper)) => return self.joblib_array(state, report),
            _ => Some("which has none".to_owned()),
        };
        if let Some(why) = refusal {
            let what = self.described(target, report);
            report.refuse(format!("gives a state to {what}, {why}"));
        }
        Ok(Step::Next)
    }

    /// A dict of attributes. A pair of dicts would be set one by one, through whatever setters there are.
    fn dict_state(&self, state: Value) -> Option<String> {
        let Some(dict) = self.heap.dict(state) else { return Some("which is not a dict of attributes".to_owned()) };
        if let Some(key) = dict.special_key {
            let key = self.heap.text(Value::Text(key)).unwrap_or_default();
            return Some(format!("which sets {}", shown(key)));
        }
        dict.has_odd_key.then(|| "whose attributes cannot be told".to_owned())
    }

    /// What a class with a `__setstate__` of its own takes.
    fn own_state(&self, state: Value) -> Option<String> {
        match state {
            Value::Dict(_) => self.dict_state(state),
            Value::Tuple(_) | Value::Bytes(_) | Value::SomeBytes | Value::Nothing => None,
            _ => Some("which is neither a dict nor a tuple".to_owned()),
        }
    }

    /// What a generator of random numbers writes: its name and numbers, alone or with the seed.
    fn random_state(&self, state: Value) -> Option<String> {
        let item = |dict: Value, key: &str| self.heap.item(dict, key);
        let state = if let Some([numbers, _]) = self.heap.tuple(state) { *numbers } else { state };
        let ahead = item(state, "bit_generator").and_then(|name| self.heap.text(name)).and_then(generators::ahead);
        let is_inside = ahead.is_some_and(|(keys, last)| {
            let place = keys.iter().try_fold(state, |inside, &key| item(inside, key));
            keys.is_empty() || matches!(place, Some(Value::Int(place)) if (0..=last).contains(&place))
        });
        (!is_inside).then(|| "which is not what numpy writes for a generator of random numbers".to_owned())
    }

    /// Functions that a transformer would call.
    fn functions(&self, state: Value) -> Option<String> {
        let is_none = |key| self.heap.item(state, key) == Some(Value::Nothing);
        if is_none("func") && is_none("inverse_func") { None } else { Some("which has functions".to_owned()) }
    }

    /// What reads texts: with functions it would call them, and with other inputs open the files that they name.
    fn texts(&self, state: Value) -> Option<String> {
        let item = |key| self.heap.item(state, key);
        let is_none = |key| item(key) == Some(Value::Nothing);
        let is_one_of = |key, known: &[&str]| item(key).and_then(|value| self.heap.text(value)).is_some_and(|text| known.contains(&text));
        if !is_one_of("input", &["content"]) {
            return Some("whose input is not said to be the texts themselves".to_owned());
        }
        let has_none = is_none("preprocessor") && is_none("tokenizer") && is_one_of("analyzer", &["word", "char", "char_wb"]);
        let has_accents = is_none("strip_accents") || is_one_of("strip_accents", &["ascii", "unicode"]);
        if has_none && has_accents { None } else { Some("which has functions".to_owned()) }
    }

    /// `(version, shape, dtype, is_fortran, data)`.
    fn array_state(&mut self, state: Value, report: &Report) -> Option<String> {
        let other = Some("which is not what numpy writes for an array".to_owned());
        let Some(&[Value::Int(_), shape, dtype, order, data]) = self.heap.tuple(state) else { return other };
        let Some(elements) = dtype::elements(&self.heap, shape) else { return other };
        let is_raw = self.use_raw(dtype);
        let is_object = self.heap.dtype(dtype).is_some_and(|dtype| dtype.is_object());
        let has_order = matches!(order, Value::Bool(_) | Value::Int(_));
        // Numpy takes as many objects as the shape says: what is in memory after a list that is shorter would become pointers.
        if let Some(items) = self.heap.list_items(data).filter(|items| is_object && *items != elements) {
            return Some(format!("whose shape has {elements} objects, and whose list {items}"));
        }
        let is_data = match data {
            Value::List(_) => is_object,
            // Of raw bytes numpy looks itself whether they are as many as shape and type say. Text is what Python 2 wrote for bytes.
            Value::Bytes(_) | Value::SomeBytes | Value::Text(_) | Value::SomeText => is_raw,
            // `bytes()`, as protocols below 3 have it.
            Value::Made(maker) => is_raw && report.label(maker) == "builtins.bytes",
            _ => false,
        };
        if has_order && is_data { None } else { other }
    }

    /// The state of joblib's wrapper: the array's bytes, or a pickle of it, come next.
    fn joblib_array(&mut self, state: Value, report: &mut Report) -> Result<Step, Fault> {
        if self.reader != Reader::Plain {
            report.refuse("has an array of joblib's where joblib reads none");
            return Ok(Step::Next);
        }
        let item = |key| self.heap.item(state, key);
        let (Some(subclass), Some(shape), Some(dtype)) = (item("subclass"), item("shape"), item("dtype")) else {
            return Err(Fault::broken("the state of joblib's array wrapper is not whole"));
        };
        let is_array = matches!(subclass, Value::Global(global) if report.label(global) == "numpy.ndarray");
        let order = item("order").and_then(|order| self.heap.text(order));
        let has_order = matches!(order, Some("C" | "F")) && matches!(item("allow_mmap"), Some(Value::Bool(_)));
        let alignment = item("numpy_array_alignment_bytes");
        let Some(kind) = self.heap.dtype(dtype).copied().filter(|_| is_array && has_order) else {
            return Err(Fault::broken("joblib's array wrapper is not of a plain array"));
        };
        let bytes = dtype::array_bytes(&self.heap, shape, kind)?;
        if !kind.is_object() && alignment != Some(Value::Int(ALIGNMENT)) {
            return Err(Fault::broken("an array that joblib before 1.2 wrote can be read in two ways: dump it again"));
        }
        if kind.bytes == 0 {
            return Err(Fault::broken("an array has elements of no bytes"));
        }
        self.use_raw(dtype);
        self.pop()?;
        let Value::Global(array) = subclass else { return Ok(Step::Next) };
        self.push(Value::Made(array))?;
        report.has_joblib_arrays = true;
        Ok(Step::Array((!kind.is_object()).then_some(bytes)))
    }
}
