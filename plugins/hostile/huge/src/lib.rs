//! A hostile guest: its answers are as large as its memory allows. `flag.misbehave` says which: `names` (a million wanted
//! fields), `salts` (as many salts), `name` (one field with a name of megabytes); anything else is an error text of megabytes.

use hostile_kit::{Manners, wanted};
use switchback_policy::split::{Decision, Field, Salt, Snapshot, SplitPolicy, Wanted};

/// What fits into 16 MiB beside what a growing list leaves behind.
const TEXT_BYTES: usize = 5 << 20;
const SALTS: usize = 250_000;
const NAMES: usize = 1_000_000;

/// The policy.
pub struct Huge {
    manners: Manners,
}

impl SplitPolicy for Huge {
    fn configure(snapshot: &Snapshot) -> Result<(Self, Wanted), String> {
        let manners = Manners::of(snapshot);
        if !manners.are_bad {
            return Ok((Huge { manners }, wanted()));
        }
        let how = snapshot.features.iter().find(|(name, _)| name == "misbehave").map_or("", |(_, how)| how.as_str());
        let fields = match how {
            "names" => (0..NAMES).map(|index| Field::Header(format!("x-{index}"))).collect(),
            "salts" => return Ok((Huge { manners }, Wanted { salts: vec![Salt::Rollout; SALTS], fields: Vec::new() })),
            "name" => vec![Field::Header("x".repeat(TEXT_BYTES))],
            _ => return Err("no ".repeat(TEXT_BYTES / 3)),
        };
        Ok((Huge { manners }, Wanted { fields, ..wanted() }))
    }

    fn route(&self, _position: u32) -> Decision {
        self.manners.decent_decision()
    }
}

switchback_policy::export_split_policy!(Huge);
