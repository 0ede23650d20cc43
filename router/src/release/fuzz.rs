//! Fuzz target of evidence records: only what a router could have kept is read, and whoever goes on from it judges each window once.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use switchback_fuzz::{Target, trace};

use super::cursor::{Sealed, due};
use super::kept::Kept as _;
use super::record::{Record, tests::record};
use crate::policy::rollback::Slice;
use crate::policy::{NativeRollback, RollbackInstance};
use crate::release::fill::{Pair, shown};

#[test]
fn evidence_record() {
    let seeds = vec![Record::default().write(), record().write()];
    let words: [&[u8]; 4] = [b"SBG", &[1], &[0xff, 0xff, 0xff, 0xff, 0x0f], b"rollout"];
    Target { name: "evidence_record", words: &words, seeds, most_bytes: 4_096 }.run(|bytes| {
        let mut record = match Record::read(bytes) {
            Ok(record) => record,
            Err(fault) => return trace(fault.to_string()),
        };
        assert_eq!(Record::read(&record.write()).as_ref(), Ok(&record));
        // Two minutes pass.
        let sealed =
            Sealed { traffic: record.next_second.saturating_add(120).max(1_200), engagement: record.next_second.saturating_add(62) };
        let slices = due(&mut record, sealed);
        let mut last = [None; 2];
        for slice in &slices {
            let place = usize::from(slice.place.slice == Slice::Traffic);
            assert!(last[place] < Some(slice.place.index), "{slices:?}");
            last[place] = Some(slice.place.index);
        }
        // Its policy takes the state, or says what is wrong with it.
        let mut judged = false;
        if let (Some(mut comparison), Some(first)) = (record.comparison, slices.first()) {
            let window = shown(&Pair::default(), &first.place);
            let mut policy = RollbackInstance::native(NativeRollback::Guardrail);
            comparison.take(policy.evaluate("{}", &comparison.state, &window).map_err(|failure| failure.to_string()));
            judged = comparison.failures == 0;
        }
        trace((slices.len(), judged))
    });
}
