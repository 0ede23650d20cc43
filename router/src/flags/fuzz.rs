//! Fuzz targets of the flags: a hash that anybody may have written, the file on disk, a rollout's record, and an entry of the ledger.
#![allow(clippy::unwrap_used)]

use sha2::{Digest, Sha256};
use switchback_fuzz::{Target, kind_of, trace};

use super::disk::{Copy, decode, encode};
use super::judge::{Judge, Mine, Stored, Verdict};
use super::ledger::{LedgerEntry, one_line, presentable};
use super::snapshot_tests::route;
use super::{FEATURES, Fields, Flags, MAX_EPOCH, seal};
use crate::vocabulary::Ppm;

const WORDS: [&[u8]; 34] = [
    b"live=",
    b"candidate_pool=",
    b"canary_percent=",
    b"holdback_pool=",
    b"holdback_percent=",
    b"mirror_percent=",
    b"pin=",
    b"freeze=",
    b"salt=",
    b"split_policy=",
    b"rollback_policy=",
    b"experiments=",
    b"epoch=",
    b"seal=",
    b"flag.beta=",
    b"\n",
    b"=",
    b"blue",
    b"green",
    b"canary",
    b"eu-test",
    b"none",
    b"true",
    b"false",
    b"2.5",
    b"100",
    b"100.0001",
    b"0.00001",
    b"{}",
    b"{\"experiments\": [{\"name\": \"e\", \"layer\": \"rollout\", \"salt\": \"abcdefgh\", \"percent\": \"5\", \"arms\": []}]}",
    b"0123456789abcdef",
    b"split-weighted@",
    b"281474976710655",
    b"\xef\xbf\xbd",
];

/// Lines of `field=value`, as a store brings them: bytes that are no UTF-8 have become replacement characters.
fn fields(bytes: &[u8]) -> Fields {
    let text = String::from_utf8_lossy(bytes);
    let pairs = text.split('\n').filter_map(|line| line.split_once('='));
    pairs.map(|(field, value)| (field.to_owned(), value.to_owned())).collect()
}

#[test]
fn flags_hash() {
    let route = route();
    let initial = Flags::initial(&route);
    Target { name: "flags_hash", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 }.run(|bytes| {
        let fields = fields(bytes);
        let (flags, faults) = Flags::read(&fields, &initial, &route);
        let pools = [Some(flags.live), Some(flags.candidate.pool), flags.holdback.map(|share| share.pool), flags.pin];
        assert!(pools.iter().flatten().all(|pool| pool.get() < route.pools.len()), "{flags:?}");
        let shares = [flags.candidate.share, flags.mirror, flags.holdback.map_or(Ppm::ZERO, |share| share.share)];
        assert!(shares.iter().all(|share| Ppm::new(share.get()) == Some(*share)), "{flags:?}");
        assert!(flags.epoch <= MAX_EPOCH && flags.features.len() <= FEATURES);
        assert!(faults.iter().all(|fault| fault.value.chars().count() <= 64 && !fault.allowed.is_empty()), "{faults:?}");
        // Each field by itself: what was obeyed is obeyed again, whatever was in force before.
        let (again, faults_again) = Flags::read(&fields, &flags, &route);
        assert_eq!((&again, &faults_again), (&flags, &faults));
        let of: Vec<&str> = faults.iter().map(|fault| fault.field.split_at_checked(6).map_or("", |(start, _)| start)).collect();
        trace((
            of,
            pools.map(|pool| pool.map(|pool| pool.get())),
            flags.is_frozen,
            flags.features.len().min(3),
            flags.experiments.is_some(),
        ))
    });
}

#[test]
fn flags_judged() {
    let judge = Judge { me: "router-1", colours: &["blue", "green"], fresh_salt: "0123456789abcdef" };
    Target { name: "flags_judged", words: &WORDS, seeds: Vec::new(), most_bytes: 4_096 }.run(|bytes| {
        // What the store holds, what it sealed last, and what this router applies: three parts of the input.
        let mut parts = bytes.split(|byte| *byte == 0x1e);
        let mut next = || fields(parts.next().unwrap_or_default());
        let (mut stored, base, sealed) = (next(), next(), next());
        let content = if stored.is_empty() { String::new() } else { seal(&stored) };
        if bytes.len().is_multiple_of(2) && !stored.is_empty() {
            stored.insert("seal".to_owned(), content.clone());
        }
        let epoch = sealed.get("epoch").and_then(|epoch| super::snapshot::read_epoch(epoch)).unwrap_or(0);
        let sealed = super::judge::without_epoch(&sealed);
        let mine = Mine { epoch, seal: "abc".to_owned(), in_force: sealed.clone(), sealed };
        let stored = Stored { fields: stored, content, base, is_oversized: bytes.len().is_multiple_of(5) };
        let (verdict, write) = match judge.judge(&stored, &mine) {
            Verdict::Apply => ("apply", None),
            Verdict::Tie => ("tie", None),
            Verdict::Reseed(write) => ("reseed", Some(write)),
            Verdict::Obey { adoption, .. } => ("obey", adoption),
        };
        if let Some(write) = &write {
            let known = mine.epoch.max(stored.sealed_epoch().unwrap_or(0));
            assert!(write.epoch > known || write.epoch == MAX_EPOCH, "{write:?} over {known}");
            assert!(!write.fields.contains_key("epoch") && !write.fields.contains_key("seal"), "{write:?}");
            assert_eq!(write.expected_content, stored.content);
        }
        let what = write.map(|write| (format!("{:?}", write.kind), write.what.len().min(4), write.fields.len().min(4)));
        trace((verdict, what))
    });
}

#[test]
fn flags_file() {
    let words: [&[u8]; 8] =
        [b"switchback-flags 1 sha256:", b"\n", b"\"route\"", b"\"epoch\"", b"\"fields\"", b"{}", b"null", b"\"search\""];
    Target { name: "flags_file", words: &words, seeds: Vec::new(), most_bytes: 4_096 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let as_it_is = decode(&text);
        // The same once more with a digest that fits, or nothing would get past it.
        let body = text.split_once('\n').map_or(&*text, |(_, body)| body);
        let sealed = format!("switchback-flags 1 sha256:{}\n{body}", hex::encode(Sha256::digest(body)));
        let copy = decode(&sealed);
        if let Ok(copy) = &copy {
            let again: Result<Copy, String> = decode(&encode(copy).unwrap());
            assert_eq!(again.as_ref(), Ok(copy));
        }
        trace((as_it_is.map(|_| ()).map_err(|why| kind_of(&why)), copy.map(|copy| copy.fields.len().min(4)).map_err(|why| kind_of(&why))))
    });
}

#[test]
fn ledger_entry() {
    let words: [&[u8]; 12] = [
        b"\"epoch\":",
        b"\"time_ms\":",
        b"\"kind\":",
        b"\"change\"",
        b"\"external-edit\"",
        b"\"reseed\"",
        b"\"what\":[",
        b"{\"field\":\"salt\",\"old\":null,\"new\":\"x\"}",
        b"\"who\":",
        b"\"why\":",
        b"null",
        b"\\u0000",
    ];
    Target { name: "ledger_entry", words: &words, seeds: Vec::new(), most_bytes: 4_096 }.run(|bytes| {
        match serde_json::from_slice::<LedgerEntry>(bytes) {
            Ok(entry) => {
                let again: LedgerEntry = serde_json::from_slice(&serde_json::to_vec(&entry).unwrap()).unwrap();
                assert_eq!(again, entry);
                let shown = presentable(entry.what.clone());
                let is_salt_hidden = |value: &Option<String>| value.as_ref().is_none_or(|value| value == "(hidden)");
                assert!(shown.iter().all(|change| change.field != "salt" || (is_salt_hidden(&change.old) && is_salt_hidden(&change.new))));
                assert!(one_line(&shown).is_empty() == shown.is_empty());
                trace((format!("{:?}", entry.kind), entry.what.len().min(4), entry.time_ms == 0))
            }
            Err(error) => trace((format!("{:?}", error.classify()), kind_of(&error.to_string()))),
        }
    });
}

#[test]
fn rollout_record() {
    let good = super::rollout::tests::rollout(&["1", "5", "25"]).render();
    let words: [&[u8]; 12] = [
        b"\"phase\":\"",
        b"canary",
        b"baking",
        b"rolled_back",
        b"\"step\":",
        b"\"percent\":\"",
        b"\"paused\":",
        b"null",
        b"true",
        b"4294967296",
        b"100.0001",
        b"\"form\":2",
    ];
    Target { name: "rollout_record", words: &words, seeds: vec![good.into_bytes()], most_bytes: 4_096 }.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Some(rollout) = super::Rollout::parse(&text) else { return trace("none") };
        assert_eq!(super::Rollout::parse(&rollout.render()).as_ref(), Some(&rollout));
        assert!(rollout.planned().is_some() && !rollout.summary().is_empty());
        trace((rollout.phase.label(), rollout.step.min(4), rollout.plan.steps.len().min(4), rollout.paused.is_some()))
    });
}
