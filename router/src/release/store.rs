//! The windows of all routers, as far as they have told the store.

use std::collections::BTreeSet;

use crate::flags::FlagStore;
use crate::quality::pages::{self, Written};

/// Faults that are told one by one.
const SHOWN_FAULTS: usize = 10;
/// A sender's field has no longer name.
const NAME_CHARACTERS: usize = 64;

/// What was heard of some pages.
#[derive(Debug, Default)]
pub struct FleetWindows {
    /// Summed over the senders.
    pub windows: Written,
    /// How many said something.
    pub senders: usize,
    /// Fields that cannot be read: which, and why; the first of them.
    pub faults: Vec<String>,
    /// The store may have lost some of what it was told, and is told again at this moment.
    pub may_have_lost: bool,
}

/// Everything that was told of these pages of a route.
///
/// # Errors
/// In words: the store is away.
pub async fn fleet_windows(flags: &FlagStore, route: &str, numbers: impl IntoIterator<Item = u64>) -> Result<FleetWindows, String> {
    let (mut heard, mut senders) = (FleetWindows::default(), BTreeSet::new());
    for page in numbers {
        let Some((fields, may_have_lost)) = flags.shelved(route, page).await? else {
            heard.faults.push(format!(
                "page {page}: the key {{switchback:{route}}}:quality:{page} is no hash; its windows are left out until it is deleted"
            ));
            continue;
        };
        heard.may_have_lost |= may_have_lost;
        for (name, value) in fields {
            let name: String = String::from_utf8_lossy(&name).chars().take(NAME_CHARACTERS).collect();
            match pages::read(page, &value) {
                Ok(windows) => {
                    pages::add(&mut heard.windows, &windows);
                    senders.extend(name.split_once('.').map(|(sender, _)| sender.to_owned()));
                }
                Err(fault) if heard.faults.len() < SHOWN_FAULTS => heard.faults.push(format!("page {page}, field {name:?}: {fault}")),
                Err(_) => {}
            }
        }
    }
    heard.senders = senders.len();
    Ok(heard)
}
