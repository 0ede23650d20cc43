//! The seal: SHA-1 over a route's fields. It tells an edit by hand from a write of Switchback's own; it is no signature.
//!
//! The bytes that are hashed are the same here and in the Lua scripts: every field but `seal`, sorted by the bytes of its name, each as
//! `<bytes of the name>:<name><bytes of the value>:<value>`. The lengths make two different hashes give two different texts.

use sha1::{Digest, Sha1};

use super::Fields;

/// The seal of these fields, 40 lower-case hex digits. A field `seal` among them is left out.
#[must_use]
pub fn seal(fields: &Fields) -> String {
    let mut hasher = Sha1::new();
    // A BTreeMap of Strings is sorted by bytes.
    for (name, value) in fields.iter().filter(|(name, _)| *name != "seal") {
        hasher.update(format!("{}:", name.len()));
        hasher.update(name);
        hasher.update(format!("{}:", value.len()));
        hasher.update(value);
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn is_the_sha1_of_the_documented_text() {
        let expected = hex::encode(Sha1::digest(b"5:epoch2:124:live4:blue"));
        assert_eq!(seal(&fields(&[("live", "blue"), ("epoch", "12"), ("seal", "whatever")])), expected);
    }

    #[test]
    fn a_text_moved_over_a_border_changes_it() {
        assert_ne!(seal(&fields(&[("flag.a", "b")])), seal(&fields(&[("flag.", "ab")])));
        assert_ne!(seal(&fields(&[("a", "11:b")])), seal(&fields(&[("a", ""), ("b", "1")])));
    }
}
