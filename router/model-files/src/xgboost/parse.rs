//! JSON, part by part: each part is borrowed from the file, and read when it is its turn.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::super::error::Malformed;

/// The file as text; binary forms are named.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Malformed> {
    let save = "save it with save_model(\"model.json\")";
    match bytes {
        // An object in UBJSON: `{`, then the length of its first key.
        [b'{', b'L' | b'i' | b'U' | b'I' | b'l' | b'$' | b'#', ..] => {
            Err(Malformed::new("the model", format!("is UBJSON, which is not read: {save}, or load it and save it anew")))
        }
        [b'b', b'i', b'n', b'f', ..] => Err(Malformed::new(
            "the model",
            format!("is in XGBoost's old binary form, which is not read: load it with the version that wrote it, and {save}"),
        )),
        _ => std::str::from_utf8(bytes).map_err(|error| {
            Malformed::new(format_args!("byte {}", error.valid_up_to()), format!("is not UTF-8: an XGBoost model is JSON; {save}"))
        }),
    }
}

/// A part as one value, with the path to what is wrong.
pub(super) fn whole<'a, T: Deserialize<'a>>(name: &str, text: &'a str) -> Result<T, Malformed> {
    let mut from = Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut from).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let place = if matches!(path.as_str(), "." | "?" | "") { name.to_owned() } else { format!("{name}: {}", clipped(&path)) };
        Malformed::new(place, explained(&inner, text))
    })?;
    from.end().map_err(|error| Malformed::new(name, explained(&error, text)))?;
    Ok(value)
}

/// A list of `most` values at most.
pub(super) fn list<T: DeserializeOwned>(name: &str, part: &RawValue, most: usize) -> Result<Vec<T>, Malformed> {
    let mut values = Vec::new();
    each(name, part, |place, value: T| {
        if place >= most {
            return Err(Malformed::new(name, format!("has more than {most} values")));
        }
        values.push(value);
        Ok(())
    })?;
    Ok(values)
}

/// The values of a list, one after the other; none is kept.
pub(super) fn each<'a, T, F>(name: &str, part: &'a RawValue, see: F) -> Result<(), Malformed>
where
    T: Deserialize<'a>,
    F: FnMut(usize, T) -> Result<(), Malformed>,
{
    let mut visit = Each { see, fault: None, count: 0, of: PhantomData };
    let mut from = Deserializer::from_str(part.get());
    let read = from.deserialize_seq(&mut visit);
    match (visit.fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(Malformed::new(format!("{name}[{}]", visit.count), explained(&error, part.get()))),
    }
}

struct Each<T, F> {
    see: F,
    fault: Option<Malformed>,
    count: usize,
    of: PhantomData<T>,
}

impl<'de, T, F> Visitor<'de> for &mut Each<T, F>
where
    T: Deserialize<'de>,
    F: FnMut(usize, T) -> Result<(), Malformed>,
{
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while let Some(value) = values.next_element()? {
            if let Err(fault) = (self.see)(self.count, value) {
                self.fault = Some(fault);
                return Err(A::Error::custom("refused"));
            }
            self.count += 1;
        }
        Ok(())
    }
}

/// What the parser says, without its place in the part; and what a model has that JSON has not.
fn explained(error: &serde_json::Error, text: &str) -> String {
    if error.is_eof() {
        return "ends too early: the file was cut off".to_owned();
    }
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = error.column().saturating_sub(2);
    let near = line.as_bytes().get(before..).unwrap_or_default();
    let near = near.get(..near.len().min(10)).unwrap_or_default();
    if error.is_syntax() && (near.windows(2).any(|two| two == b"Na" || two == b"In")) {
        return "must be a finite number".to_owned();
    }
    let text = error.to_string();
    if text.starts_with("number out of range") {
        return "must be a finite number".to_owned();
    }
    clipped(text.split(" at line ").next().unwrap_or(&text)).to_owned()
}

/// The start of a text.
fn clipped(text: &str) -> &str {
    text.char_indices().nth(160).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}
