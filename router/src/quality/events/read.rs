//! From a request's body to events: one object, an array, or an event on each line (NDJSON), as UBI 1.3 has them. Pure.
//!
//! Lenient: unknown fields are passed over, numbers may be text, the position may be in any of the places that senders put it. Strict: whatever
//! is used is of its type and within its range, and an event that is not is refused by itself, with its reason.
//!
//! Invariant: nothing is allocated by what a body says, only by how long it is, and by `max_events`: values that are not used are skipped where
//! they stand, without recursion.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::refusal::EventRefusal;
use crate::quality::millionths;

/// UBI's deepest example has six.
const DEPTH: usize = 16;
/// Nobody shows more results.
const LAST_POSITION: u16 = 10_000;
/// A longer action is none that is known.
const ACTION_BYTES: usize = 64;
/// A longer token is none.
const TOKEN_BYTES: usize = 100;

/// What a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Clicked on a result.
    Click,
    /// Saw a result.
    Impression,
    /// Did what the search was for.
    Conversion,
    /// Bought.
    Purchase,
    /// Was about to buy.
    AddToCart,
    /// A number in 0..=1, in millionths, under the name at this place of `events.quality_actions`.
    Quality(u8, u32),
}

impl Action {
    /// The `action` label: `quality` whatever its name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Action::Click => "click",
            Action::Impression => "impression",
            Action::Conversion => "conversion",
            Action::Purchase => "purchase",
            Action::AddToCart => "add_to_cart",
            Action::Quality(..) => "quality",
        }
    }
}

/// An event as it is read: nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// What.
    pub(super) action: Action,
    /// The text of a token, or anything else.
    pub(super) token: String,
    /// Of the result, from 1; 0 where it is not said.
    pub(super) position: u16,
}

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    /// Further events are not read, and are refused.
    pub(super) max_events: usize,
    /// Actions that come with a number.
    pub(super) quality_actions: &'a [String],
}

/// The events of one request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Batch {
    /// Each in its order, or why it is refused.
    pub(super) events: Vec<Result<Event, EventRefusal>>,
    /// How many more there were than `max_events`: they were not looked at.
    pub(super) too_many: usize,
}

/// Reads a body.
pub(super) fn read(body: &[u8], reading: Reading<'_>) -> Batch {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut reader = Reader { reading, batch: Batch::default() };
    if body.trim_ascii().is_empty() {
        reader.add(|_| Err(EventRefusal::Empty));
    } else if !reader.read_values(body) {
        reader.batch = Batch::default();
        reader.read_lines(body);
    }
    reader.batch
}

struct Reader<'a> {
    reading: Reading<'a>,
    batch: Batch,
}

impl Reader<'_> {
    /// Values one after the other, whatever blanks are between them. False when there is anything else.
    fn read_values(&mut self, body: &[u8]) -> bool {
        let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
        values.all(|value| value.is_ok_and(|value| self.read_value(value.get())))
    }

    /// A value on each line, each good or bad by itself. Where no line is an object or array, all of it is one thing that makes no sense.
    fn read_lines(&mut self, body: &[u8]) {
        let lines = || body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
        let whole = |line: &[u8]| {
            let value: Option<&RawValue> = serde_json::from_slice(line).ok();
            value.is_some_and(|value| value.get().starts_with(['{', '[']))
        };
        if !lines().any(whole) {
            self.add(|_| Err(unreadable(body)));
            return;
        }
        for line in lines() {
            let value: Option<&RawValue> = serde_json::from_slice(line).ok();
            if !value.is_some_and(|value| self.read_value(value.get())) {
                self.add(|_| Err(unreadable(line)));
            }
        }
    }

    /// An event, or an array of them. False for an array that cannot be read, which no parser that came before lets pass.
    fn read_value(&mut self, value: &str) -> bool {
        if !value.starts_with('[') {
            self.add(|reading| event(value, reading));
            return true;
        }
        serde::Deserializer::deserialize_seq(&mut serde_json::Deserializer::from_str(value), self).is_ok()
    }

    fn add(&mut self, read: impl FnOnce(Reading<'_>) -> Result<Event, EventRefusal>) {
        if self.batch.events.len() < self.reading.max_events {
            self.batch.events.push(read(self.reading));
        } else {
            self.batch.too_many += 1;
        }
    }
}

impl<'de> serde::de::Visitor<'de> for &mut Reader<'_> {
    type Value = ();

    fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("an array of events")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<&RawValue>()? {
            self.add(|reading| event(item.get(), reading));
        }
        Ok(())
    }
}

fn unreadable(bytes: &[u8]) -> EventRefusal {
    if std::str::from_utf8(bytes).is_err() { EventRefusal::BadUtf8 } else { EventRefusal::BadJson }
}

/// What is used of an event; `null` is as good as nothing.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    action_name: Option<&'a RawValue>,
    #[serde(borrow)]
    query_id: Option<&'a RawValue>,
    #[serde(borrow)]
    event_attributes: Option<&'a RawValue>,
    #[serde(borrow)]
    position: Option<&'a RawValue>,
    #[serde(borrow)]
    ordinal: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Attributes<'a> {
    #[serde(borrow)]
    position: Option<&'a RawValue>,
    #[serde(borrow)]
    ordinal: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    ordinal: Option<&'a RawValue>,
}

/// Reads an event that is surely JSON.
fn event(json: &str, reading: Reading<'_>) -> Result<Event, EventRefusal> {
    if depth(json) > DEPTH {
        return Err(EventRefusal::TooDeep);
    }
    let written: Written<'_> = object(json)?;
    let attributes: Attributes<'_> = written.event_attributes.map(|raw| object(raw.get())).transpose()?.unwrap_or_default();
    let name = text(written.action_name.ok_or(EventRefusal::MissingField)?, ACTION_BYTES)?.ok_or(EventRefusal::UnknownAction)?;
    let token = text(written.query_id.ok_or(EventRefusal::MissingField)?, TOKEN_BYTES)?.unwrap_or_default();
    let action = action(&name, attributes.value.or(written.value), reading)?;
    let places = [attributes.position, attributes.ordinal, written.position, written.ordinal];
    let position = places.into_iter().flatten().next().map_or(Ok(0), position)?;
    Ok(Event { action, token, position })
}

fn action(name: &str, value: Option<&RawValue>, reading: Reading<'_>) -> Result<Action, EventRefusal> {
    let fixed = [Action::Click, Action::Impression, Action::Conversion, Action::Purchase, Action::AddToCart];
    if let Some(action) = fixed.into_iter().find(|action| action.label().eq_ignore_ascii_case(name)) {
        return Ok(action);
    }
    let place = reading.quality_actions.iter().position(|known| known.eq_ignore_ascii_case(name));
    let place = place.and_then(|place| u8::try_from(place).ok()).ok_or(EventRefusal::UnknownAction)?;
    let number = number(value.ok_or(EventRefusal::BadNumber)?)?;
    if !(0.0..=1.0).contains(&number) {
        return Err(EventRefusal::BadNumber);
    }
    Ok(Action::Quality(place, u32::try_from(millionths(number)).unwrap_or(u32::MAX)))
}

/// `{"ordinal": 3}`, `3` or `"3"`.
fn position(raw: &RawValue) -> Result<u16, EventRefusal> {
    if raw.get().starts_with('{') {
        let place: Place<'_> = object(raw.get())?;
        return place.ordinal.map_or(Ok(0), ordinal);
    }
    ordinal(raw)
}

fn ordinal(raw: &RawValue) -> Result<u16, EventRefusal> {
    let number = number(raw)?;
    if number.fract() != 0.0 || !(1.0..=f64::from(LAST_POSITION)).contains(&number) {
        return Err(EventRefusal::BadPosition);
    }
    // Whole and in range, so that nothing is cut off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let position = number as u16;
    Ok(position)
}

/// The fields of an object. A field that is there twice could be read in two ways.
fn object<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, EventRefusal> {
    if !json.starts_with('{') {
        return Err(EventRefusal::WrongType);
    }
    serde_json::from_str(json).map_err(|_| EventRefusal::TwiceSaid)
}

/// A text; `None` when it is longer than this.
fn text(raw: &RawValue, most: usize) -> Result<Option<String>, EventRefusal> {
    if !raw.get().starts_with('"') {
        return Err(EventRefusal::WrongType);
    }
    // A character is at most six as an escape.
    if raw.get().len() > 6 * most + 2 {
        return Ok(None);
    }
    let text: String = serde_json::from_str(raw.get()).map_err(|_| EventRefusal::BadJson)?;
    Ok(Some(text).filter(|text| text.len() <= most))
}

/// A number, also as text. It may be infinite where it has an exponent.
fn number(raw: &RawValue) -> Result<f64, EventRefusal> {
    let text = if raw.get().starts_with('"') { text(raw, 32)?.ok_or(EventRefusal::WrongType)? } else { raw.get().to_owned() };
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    text.parse().ok().filter(|_| is_number).ok_or(EventRefusal::WrongType)
}

/// How deep what is surely JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> Vec<String> {
        vec!["quality".to_owned(), "rating".to_owned()]
    }

    fn batch(body: &[u8]) -> Batch {
        read(body, Reading { max_events: 5, quality_actions: &names() })
    }

    /// The one event of a body.
    fn one(body: &str) -> Result<Event, EventRefusal> {
        let mut batch = batch(body.as_bytes());
        assert_eq!((batch.events.len(), batch.too_many), (1, 0), "{body}: {batch:?}");
        batch.events.remove(0)
    }

    fn click(more: &str) -> String {
        format!("{{\"action_name\": \"click\", \"query_id\": \"t\"{more}}}")
    }

    fn clicked(position: u16) -> Result<Event, EventRefusal> {
        Ok(Event { action: Action::Click, token: "t".to_owned(), position })
    }

    /// As in the description of UBI 1.3.
    const UBI: &str = r#"{
        "application": "my_search", "action_name": "click", "query_id": "t", "session_id": "s", "client_id": "c",
        "timestamp": "2026-11-20T10:12:13.000Z", "message_type": "INFO", "message": null,
        "event_attributes": {
            "object": {"object_id": "p1", "object_id_field": "sku", "object_detail": {"price": 1.5, "tags": ["a", {"b": []}]}},
            "position": {"ordinal": 3, "x": 10, "y": 20}
        }
    }"#;

    #[test]
    fn an_event_of_ubi_is_read_however_it_comes() {
        assert_eq!(one(UBI), clicked(3));
        let line = UBI.replace('\n', " ");
        for body in [
            format!("[{UBI}, {UBI}]"),
            format!("{line}\n{line}\n"),
            format!("{line}\r\n\r\n{line}"),
            format!("\u{feff}{UBI}{UBI}"),
            format!("[{line}]\n[{line}]"),
        ] {
            assert_eq!(batch(body.as_bytes()).events, [clicked(3), clicked(3)], "{body}");
        }
        assert_eq!(batch(b"[]"), Batch::default());
    }

    #[test]
    fn a_position_is_found_where_senders_put_it() {
        for (more, position) in [
            ("", 0),
            (r#", "event_attributes": {"position": {"ordinal": 7}}"#, 7),
            (r#", "event_attributes": {"position": 7}"#, 7),
            (r#", "event_attributes": {"position": "7"}"#, 7),
            (r#", "event_attributes": {"ordinal": 7.0}"#, 7),
            (r#", "event_attributes": {"position": {"x": 1}}"#, 0),
            (r#", "event_attributes": {"position": null}, "position": 7"#, 7),
            (r#", "event_attributes": null, "position": {"ordinal": 7}"#, 7),
            (r#", "ordinal": "7""#, 7),
            (r#", "ordinal": 1e4"#, 10_000),
        ] {
            assert_eq!(one(&click(more)), clicked(position), "{more}");
        }
    }

    #[test]
    fn what_is_used_must_be_of_its_type_and_in_its_range() {
        use EventRefusal::{BadNumber, BadPosition, MissingField, TooDeep, TwiceSaid, UnknownAction, WrongType};
        let deep = format!(", \"x\": {}{}", "[".repeat(16), "]".repeat(16));
        for (body, refusal) in [
            ("7", WrongType),
            ("null", WrongType),
            ("\"click\"", WrongType),
            ("{}", MissingField),
            (r#"{"action_name": "click"}"#, MissingField),
            (r#"{"query_id": "t"}"#, MissingField),
            (r#"{"action_name": null, "query_id": "t"}"#, MissingField),
            (r#"{"action_name": 7, "query_id": "t"}"#, WrongType),
            (r#"{"action_name": "click", "query_id": ["t"]}"#, WrongType),
            (r#"{"action_name": "hover", "query_id": "t"}"#, UnknownAction),
            (r#"{"action_name": "", "query_id": "t"}"#, UnknownAction),
            (r#"{"action_name": "click", "action_name": "click", "query_id": "t"}"#, TwiceSaid),
            (&click(r#", "event_attributes": []"#), WrongType),
            (&click(r#", "event_attributes": "x""#), WrongType),
            (&click(r#", "position": true"#), WrongType),
            (&click(r#", "position": [1]"#), WrongType),
            (&click(r#", "position": {"ordinal": {}}"#), WrongType),
            (&click(r#", "position": "first""#), WrongType),
            (&click(r#", "position": "NaN""#), WrongType),
            (&click(r#", "position": 0"#), BadPosition),
            (&click(r#", "position": -1"#), BadPosition),
            (&click(r#", "position": 1.5"#), BadPosition),
            (&click(r#", "position": 10001"#), BadPosition),
            (&click(r#", "position": 1e999"#), BadPosition),
            (&click(&deep), TooDeep),
            (r#"{"action_name": "rating", "query_id": "t"}"#, BadNumber),
            (r#"{"action_name": "rating", "query_id": "t", "value": 1.01}"#, BadNumber),
            (r#"{"action_name": "rating", "query_id": "t", "value": -0.1}"#, BadNumber),
            (r#"{"action_name": "rating", "query_id": "t", "value": 1e400}"#, BadNumber),
            (r#"{"action_name": "rating", "query_id": "t", "value": "NaN"}"#, WrongType),
            (r#"{"action_name": "rating", "query_id": "t", "value": {}}"#, WrongType),
        ] {
            assert_eq!(one(body), Err(refusal), "{body}");
        }
        let long = format!("{{\"action_name\": \"{}\", \"query_id\": \"t\"}}", "a".repeat(100_000));
        assert_eq!(one(&long), Err(UnknownAction));
        let token = format!("{{\"action_name\": \"click\", \"query_id\": \"{}\"}}", "a".repeat(100_000));
        assert_eq!(one(&token).unwrap().token, "", "no such token is kept");
    }

    #[test]
    fn numbers_come_under_the_names_of_the_config() {
        let rating = |value: &str| one(&format!("{{\"action_name\": \"rating\", \"query_id\": \"t\", {value}}}")).unwrap().action;
        assert_eq!(rating("\"value\": 0.25"), Action::Quality(1, 250_000));
        assert_eq!(rating("\"event_attributes\": {\"value\": \"1\"}, \"value\": 7"), Action::Quality(1, 1_000_000));
        assert_eq!(one(&click("").replace("click", "Purchase")).unwrap().action, Action::Purchase);
    }

    #[test]
    fn one_bad_line_spoils_no_other_and_what_is_no_line_is_one_refusal() {
        let body = [click("").as_bytes(), b"\n{\"action_name\": \"cli\n\xff\xfe{}\n", click("").as_bytes(), b"\n"].concat();
        let expected = [clicked(0), Err(EventRefusal::BadJson), Err(EventRefusal::BadUtf8), clicked(0)];
        assert_eq!(batch(&body).events, expected);
        let refused = |body: &[u8], refusal| assert_eq!(batch(body).events, [Err(refusal)], "{}", body.escape_ascii());
        refused(b"", EventRefusal::Empty);
        refused(b" \r\n\t", EventRefusal::Empty);
        refused(b"<html>\n<body>\n", EventRefusal::BadJson);
        refused(b"action_name=click&query_id=t", EventRefusal::BadJson);
        refused(UBI.replace("INFO\"", "INFO").as_bytes(), EventRefusal::BadJson);
        refused(format!("[{}", click("")).as_bytes(), EventRefusal::BadJson);
        refused(b"\x1f\x8b\x08\0\0\0", EventRefusal::BadUtf8);
        refused("[".repeat(200_000).as_bytes(), EventRefusal::BadJson);
        refused(format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)).as_bytes(), EventRefusal::TooDeep);
    }

    #[test]
    fn further_events_are_counted_and_not_read() {
        let body = format!("[{}{}]", format!("{},", click("")).repeat(11), click(""));
        let read = batch(body.as_bytes());
        assert_eq!((read.events.len(), read.too_many), (5, 7));
        assert_eq!(batch("{}\n".repeat(9).as_bytes()).too_many, 4);
    }

    proptest! {
        #[test]
        fn no_bytes_are_more_than_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = batch(&bytes);
            prop_assert!(read.events.len() <= 5);
            prop_assert!(read.events.len() + read.too_many <= bytes.len().max(1));
        }

        #[test]
        fn a_position_reads_back(ordinal in 1..=10_000_u16, as_text in any::<bool>()) {
            let value = if as_text { format!("\"{ordinal}\"") } else { ordinal.to_string() };
            prop_assert_eq!(one(&click(&format!(", \"event_attributes\": {{\"position\": {{\"ordinal\": {value}}}}}"))), clicked(ordinal));
        }
    }
}
