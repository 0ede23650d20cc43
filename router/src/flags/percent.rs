//! Shares in JSON, as people write them: `"2.5"`. A number is read, too.

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::vocabulary::Ppm;

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(serde_json::Number),
}

pub(super) fn serialize<S: Serializer>(share: &Ppm, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&share.to_string())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ppm, D::Error> {
    let text = match Written::deserialize(deserializer)? {
        Written::Text(text) => text,
        Written::Number(number) => number.to_string(),
    };
    Ppm::from_percent(&text)
        .ok_or_else(|| de::Error::custom(format_args!("{text} is no percentage: 0 to 100 with up to 4 decimals, like \"2.5\"")))
}
