//! The embedded store: flags of one router, in its own process.

use std::sync::{Arc, Mutex, PoisonError};

use super::edit::apply;
use super::ledger::{Kind, LedgerEntry, difference, presentable};
use super::published::{Applied, Cause, Published, Source};
use super::{Change, ChangeError, Fields, Flags, FlagsError, HistoryError, RouterSeen, seal};
use crate::config::Config;
use crate::vocabulary::RouteIndex;

#[derive(Debug)]
pub(crate) struct Embedded {
    published: Arc<Published>,
    ledgers: Mutex<Vec<Vec<LedgerEntry>>>,
}

impl Embedded {
    pub(crate) fn open(config: &Arc<Config>) -> Result<(Arc<Published>, Embedded), FlagsError> {
        let mut starts = Vec::new();
        for route in &config.routes {
            let initial = Flags::initial(route);
            let mut fields = initial.render(route);
            fields.insert("salt".to_owned(), new_salt());
            let fields = sealed(fields, 1);
            let (known, faults) = Flags::read(&fields, &initial, route);
            starts.push(Applied { fields, known, faults, source: Source::Embedded });
        }
        let published = Arc::new(Published::new(config.clone(), starts));
        let ledgers = Mutex::new(vec![Vec::new(); config.routes.len()]);
        Ok((published.clone(), Embedded { published, ledgers }))
    }

    pub(crate) async fn change(&self, index: RouteIndex, change: Change) -> Result<u64, ChangeError> {
        let mut ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(applied), Some(route)) = (self.published.applied(index), self.published.route(index)) else {
            return Err(ChangeError::NotSaved { why: "there is no such route".to_owned() });
        };
        let found = applied.known.epoch;
        if let Some(expected) = change.expected_epoch.filter(|expected| *expected != found) {
            return Err(ChangeError::Conflict { expected, found });
        }
        let fields = apply(&applied.fields, &change, &applied.known, route).map_err(ChangeError::Invalid)?;
        let epoch = found + 1;
        let fields = sealed(fields, epoch);
        let (known, faults) = Flags::read(&fields, &applied.known, route);
        let what = presentable(difference(&applied.fields, &fields));
        let cause = Cause { who: change.who.clone(), why: change.why.clone() };
        if let Some(ledger) = ledgers.get_mut(index.get()) {
            ledger.push(LedgerEntry { epoch, time_ms: 0, kind: Kind::Change, who: change.who, why: change.why, what });
        }
        self.published.apply(index, Applied { fields, known, faults, source: Source::Embedded }, &cause);
        Ok(epoch)
    }

    pub(crate) fn routers(&self, index: RouteIndex) -> Vec<RouterSeen> {
        let Some(flags) = self.published.flags(index) else { return Vec::new() };
        let config = self.published.config();
        let id = config.state.router_id.clone().unwrap_or_else(|| "self".to_owned());
        let admin = config.listen.admin.to_string();
        vec![RouterSeen { id, epoch: flags.epoch, seal: flags.seal.clone(), seen_ms_ago: 0, is_known: true, admin }]
    }

    pub(crate) async fn history(&self, index: RouteIndex, limit: usize) -> Result<Vec<LedgerEntry>, HistoryError> {
        let ledgers = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ledgers.get(index.get()).into_iter().flatten().rev().take(limit).cloned().collect())
    }
}

fn sealed(mut fields: Fields, epoch: u64) -> Fields {
    fields.insert("epoch".to_owned(), epoch.to_string());
    fields.insert("seal".to_owned(), seal(&fields));
    fields
}

fn new_salt() -> String {
    let mut bytes = [0u8; 16];
    // Without the system's random source nothing else of this router works either.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}
