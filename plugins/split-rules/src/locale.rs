//! What language somebody prefers, as `Accept-Language` says it (RFC 9110, section 12.5.4), and whether it is one of a rule's. Pure.

/// The tag with the highest weight; of equal ones the first. `*`, a weight of 0 and what is no tag count for nothing. A plain `de-AT`, as
/// cookies have it, is a list of one.
pub(crate) fn preferred(list: &str) -> Option<&str> {
    let mut best: Option<(&str, u16)> = None;
    for entry in list.split(',') {
        let (tag, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let tag = tag.trim();
        let Some(weight) = weight(parameters).filter(|weight| *weight > 0 && is_tag(tag)) else { continue };
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((tag, weight));
        }
    }
    best.map(|(tag, _)| tag)
}

/// Whether `tag` is `range` or a more special form of it: `de-AT` is within `de`, `de` is not within `de-AT`. Case does not matter, and
/// `de_AT` is read as `de-AT`.
pub(crate) fn is_within(tag: &str, range: &str) -> bool {
    let is_same = |(one, other): (u8, u8)| plain(one) == plain(other);
    let starts_so = tag.len() >= range.len() && tag.bytes().zip(range.bytes()).all(is_same);
    starts_so && tag.as_bytes().get(range.len()).is_none_or(|next| plain(*next) == b'-')
}

/// Letters, digits and hyphens, at most 35 characters: the longest tag that RFC 5646 asks a program to know.
pub(crate) fn is_tag(text: &str) -> bool {
    (1..=35).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn plain(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

/// `q=0.8` in thousandths; 1,000 when there is none, `None` when it makes no sense.
fn weight(parameters: &str) -> Option<u16> {
    let quality = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    let Some(text) = quality else { return Some(1_000) };
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths = format!("{decimals:0<3}").parse::<u16>().ok()?;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_weight_wins_and_of_equal_ones_the_first() {
        let cases = [
            ("de-AT", Some("de-AT")),
            ("en-GB,en;q=0.9,de;q=0.8", Some("en-GB")),
            ("fr;q=0.3, de;q=0.7, en;q=0.7", Some("de")),
            ("fr ; Q=0.250 ,de;q=0.251", Some("de")),
            ("*;q=1, da;q=0.1", Some("da")),
            ("en;q=0, de;q=0.001", Some("de")),
            ("en;q=0", None),
            ("*", None),
            ("", None),
            (",,;q=1", None),
            // What makes no sense is passed over; it takes nothing else with it.
            ("en;q=2, de;q=0.5", Some("de")),
            ("en;q=0.1234, fr;q=x, it;q=1.1, de;q=1.000", Some("de")),
            ("<script>, nl", Some("nl")),
        ];
        for (list, expected) in cases {
            assert_eq!(preferred(list), expected, "{list:?}");
        }
    }

    #[test]
    fn a_range_holds_its_special_forms_and_nothing_else() {
        for (tag, range) in [("de", "de"), ("de-AT", "de"), ("DE_at", "de-AT"), ("zh-Hant-TW", "zh-Hant")] {
            assert!(is_within(tag, range), "{tag} {range}");
        }
        for (tag, range) in [("de", "de-AT"), ("den", "de"), ("en", "de"), ("", "de")] {
            assert!(!is_within(tag, range), "{tag} {range}");
        }
    }
}
