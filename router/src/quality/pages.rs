//! How windows are written down for the fleet. Pure.
//!
//! A page has ten windows. Each sender has two fields in it: its *traffic*, which is written twice a second while the windows pass, and its *engagement* (clicks
//! and conversions, and the impressions that they are of), which is small, and written for a minute and more. A field is everything that the sender has
//! to say of the page, so that fields of different senders are added, and a newer one of the same sender replaces the older one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::{Counts, Number};
use super::windows::{Window, merge};

/// Windows of one page.
pub const PAGE: u32 = 10;
/// Of this form; a router that knows another one says so, and leaves it out.
const FORM: u8 = 1;
/// A field longer than this is nobody's: ten windows of 64 versions with every bucket in use are shorter.
pub const FIELD_BYTES: usize = 4 << 20;

/// Which half of the windows a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Half {
    /// Requests, errors, timeouts, latency, zero results, quality.
    Traffic,
    /// Impressions, clicks, conversions.
    Engagement,
}

impl Half {
    /// Both.
    pub const ALL: [Half; 2] = [Half::Traffic, Half::Engagement];

    /// The name of a sender's field.
    #[must_use]
    pub fn field(self, sender: &str) -> String {
        match self {
            Half::Traffic => format!("{sender}.traffic"),
            Half::Engagement => format!("{sender}.engagement"),
        }
    }

    fn has(self, number: Number) -> bool {
        number.is_engagement() == (self == Half::Engagement)
    }

    /// This half of some counts.
    #[must_use]
    pub fn of(self, counts: &Counts) -> Counts {
        let mut half = Counts::default();
        for number in Number::ALL.into_iter().filter(|number| self.has(*number)) {
            half[number] = counts[number];
        }
        let is_mine = |number: u8| Number::ALL.get(usize::from(number)).is_some_and(|number| self.has(*number));
        half.groups = counts.groups.iter().filter(|((_, number), _)| is_mine(*number)).map(|(place, count)| (*place, *count)).collect();
        if self == Half::Traffic {
            half.latency.clone_from(&counts.latency);
        }
        half
    }
}

/// The page of a window.
#[must_use]
pub fn page_of(window: u32) -> u64 {
    u64::from(window / PAGE)
}

/// Some windows, by second.
pub type Written = BTreeMap<u32, Window>;

#[derive(Serialize, Deserialize)]
struct Field {
    form: u8,
    windows: Written,
}

/// One half of some windows as a field. Empty where there is nothing to say.
#[must_use]
pub fn write<'a>(half: Half, windows: impl Iterator<Item = (u32, &'a Window)>) -> Vec<u8> {
    let halved = windows.map(|(second, window)| {
        let versions = window.iter().map(|(version, counts)| (*version, half.of(counts))).filter(|(_, counts)| !counts.is_empty());
        (second, versions.collect::<Window>())
    });
    let windows: Written = halved.filter(|(_, window)| !window.is_empty()).collect();
    if windows.is_empty() {
        return Vec::new();
    }
    postcard::to_allocvec(&Field { form: FORM, windows }).unwrap_or_default()
}

/// Why a field says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Longer than [`FIELD_BYTES`].
    #[error("it is longer than {FIELD_BYTES} bytes")]
    TooLong,
    /// Not what this program writes.
    #[error("it cannot be read")]
    Unreadable,
    /// Of another form: another program's.
    #[error("it is of form {0}, and this program knows form {FORM}")]
    OtherForm(u8),
    /// It has a window of another page, or counts something that nobody counts.
    #[error("it counts what cannot be in this page")]
    Unsound,
}

/// What a field of a page says.
///
/// # Errors
/// [`PageFault`]. The field may be anybody's.
pub fn read(page: u64, field: &[u8]) -> Result<Written, PageFault> {
    if field.len() > FIELD_BYTES {
        return Err(PageFault::TooLong);
    }
    let form = *field.first().ok_or(PageFault::Unreadable)?;
    if form != FORM {
        return Err(PageFault::OtherForm(form));
    }
    let (Field { windows, .. }, rest) = postcard::take_from_bytes(field).map_err(|_| PageFault::Unreadable)?;
    let is_sound = rest.is_empty()
        && windows.keys().all(|second| page_of(*second) == page)
        && windows.values().flat_map(BTreeMap::values).all(Counts::is_of_a_window);
    if is_sound { Ok(windows) } else { Err(PageFault::Unsound) }
}

/// Adds what one field says to what others say.
pub fn add(sum: &mut Written, field: &Written) {
    for (second, window) in field {
        merge(sum.entry(*second).or_default(), window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::counts::tests::counts;
    use proptest::prelude::*;

    const FIRST: u32 = 1_800_000_000;

    fn windows() -> impl Strategy<Value = Written> {
        prop::collection::btree_map(FIRST..FIRST + PAGE, prop::collection::btree_map(any::<u32>(), counts(), 1..3), 1..4)
    }

    fn field(half: Half, windows: &Written) -> Vec<u8> {
        write(half, windows.iter().map(|(second, window)| (*second, window)))
    }

    /// Windows and versions with nothing in them are left out.
    fn without_nothing(mut windows: Written) -> Written {
        for window in windows.values_mut() {
            window.retain(|_, counts| !counts.is_empty());
        }
        windows.retain(|_, window| !window.is_empty());
        windows
    }

    proptest! {
        #[test]
        fn both_halves_together_are_the_whole(windows in windows()) {
            let mut sum = Written::new();
            for field in Half::ALL.map(|half| field(half, &windows)).iter().filter(|field| !field.is_empty()) {
                add(&mut sum, &read(page_of(FIRST), field).unwrap());
            }
            prop_assert_eq!(sum, without_nothing(windows));
        }

        #[test]
        fn whatever_stands_there_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = FORM;
            }
            let _ = read(page_of(FIRST), &bytes);
        }

        #[test]
        fn a_field_that_was_cut_off_is_refused(windows in windows(), cut in 1..100_usize) {
            let mut field = field(Half::Traffic, &windows);
            prop_assume!(!field.is_empty());
            field.truncate(field.len().saturating_sub(cut));
            prop_assert!(read(page_of(FIRST), &field).is_err());
        }
    }

    #[test]
    fn what_is_not_of_the_page_is_refused() {
        let mut counts = Counts::default();
        counts.add(Number::Requests, 0, 1);
        let with = |second: u32, counts: &Counts| field(Half::Traffic, &Written::from([(second, Window::from([(7, counts.clone())]))]));
        let page = page_of(FIRST);
        assert_eq!(read(page, &with(FIRST, &counts)).map(|windows| windows.len()), Ok(1));
        assert_eq!(read(page, &with(FIRST + PAGE, &counts)), Err(PageFault::Unsound));
        counts.latency.insert(9_999, 1);
        assert_eq!(read(page, &with(FIRST, &counts)), Err(PageFault::Unsound));
        assert_eq!((read(page, &[2, 0]), read(page, b"")), (Err(PageFault::OtherForm(2)), Err(PageFault::Unreadable)));
        assert_eq!(read(page, &vec![FORM; FIELD_BYTES + 1]), Err(PageFault::TooLong));
        assert!(write(Half::Engagement, std::iter::empty()).is_empty());
    }
}
