//! One policy on one worker.

use split_weighted::WeightedSplit;
use switchback_policy::split::{Decision, Field, Salt, Snapshot, SplitPolicy, Wanted};

use super::failure::PolicyFailure;
use super::host_v0::RunningSplit;

/// Most salts, and most fields, that a policy may want.
const WANTED: usize = 16;
/// The longest text of a named salt, or of a field's name, in bytes.
const NAME_BYTES: usize = 128;

/// A configured split policy that belongs to one worker thread.
///
/// After an `Err`, drop it: a trap leaves the guest's memory as it was in the middle of the call, so every further call fails
/// too; and one that refused the flags is configured for older ones.
pub struct SplitInstance {
    running: Running,
    /// Pools in the snapshot that it was configured with.
    pools: u32,
}

enum Running {
    Wasm(Box<RunningSplit>),
    Native(WeightedSplit),
}

impl SplitInstance {
    pub(super) fn wasm(mut running: RunningSplit, snapshot: &Snapshot) -> Result<(SplitInstance, Wanted), PolicyFailure> {
        let wanted = check_wanted(running.configure(snapshot)?)?;
        Ok((SplitInstance { running: Running::Wasm(Box::new(running)), pools: pools(snapshot) }, wanted))
    }

    pub(super) fn native(snapshot: &Snapshot) -> Result<(SplitInstance, Wanted), PolicyFailure> {
        let (policy, wanted) = WeightedSplit::configure(snapshot).map_err(|reason| PolicyFailure::refused(&reason))?;
        Ok((SplitInstance { running: Running::Native(policy), pools: pools(snapshot) }, wanted))
    }

    /// Takes new flags. About 2 us.
    ///
    /// # Errors
    /// Drop the instance.
    pub fn configure(&mut self, snapshot: &Snapshot) -> Result<Wanted, PolicyFailure> {
        let wanted = match &mut self.running {
            Running::Wasm(running) => check_wanted(running.configure(snapshot)?)?,
            Running::Native(policy) => {
                let (configured, wanted) = WeightedSplit::configure(snapshot).map_err(|reason| PolicyFailure::refused(&reason))?;
                *policy = configured;
                wanted
            }
        };
        self.pools = pools(snapshot);
        Ok(wanted)
    }

    /// Routes one query by its unit's position, 0..=999_999, when one salt and no field was wanted. The pool of the decision
    /// is one of the snapshot's.
    ///
    /// # Errors
    /// Drop the instance.
    pub fn route(&mut self, position: u32) -> Result<Decision, PolicyFailure> {
        let decision = match &mut self.running {
            Running::Wasm(running) => running.route(position)?,
            Running::Native(policy) => policy.route(position),
        };
        self.check_pool(decision)
    }

    /// Routes one query when fields or several salts were wanted: one position for each salt and one value for each field,
    /// in the order in which they were wanted.
    ///
    /// # Errors
    /// Drop the instance.
    pub fn route_fields(&mut self, positions: &[u32], fields: &[Option<&str>]) -> Result<Decision, PolicyFailure> {
        let decision = match &mut self.running {
            Running::Wasm(running) => running.route_fields(positions, fields)?,
            Running::Native(policy) => policy.route(positions.first().copied().unwrap_or(0)),
        };
        self.check_pool(decision)
    }

    fn check_pool(&self, decision: Decision) -> Result<Decision, PolicyFailure> {
        if decision.pool < self.pools {
            return Ok(decision);
        }
        Err(PolicyFailure::nonsense(format!("pool {}, where the route has {} pools", decision.pool, self.pools)))
    }
}

fn pools(snapshot: &Snapshot) -> u32 {
    u32::try_from(snapshot.pools.len()).unwrap_or(u32::MAX)
}

/// Refuses what the interface does not allow a policy to want.
fn check_wanted(wanted: Wanted) -> Result<Wanted, PolicyFailure> {
    if wanted.salts.is_empty() || wanted.salts.len() > WANTED {
        return Err(PolicyFailure::nonsense(format!("it wants {} salts; 1 to {WANTED} are allowed", wanted.salts.len())));
    }
    if wanted.fields.len() > WANTED {
        return Err(PolicyFailure::nonsense(format!("it wants {} fields; {WANTED} at most are allowed", wanted.fields.len())));
    }
    for salt in &wanted.salts {
        if let Salt::Named(text) = salt {
            check_name("a salt named", text)?;
        }
    }
    for field in &wanted.fields {
        match field {
            Field::Path => {}
            Field::Query(name) => check_name("the query parameter", name)?,
            Field::Cookie(name) => check_name("the cookie", name)?,
            Field::Header(name) => {
                check_name("the header", name)?;
                let is_lower_case_name = http::HeaderName::from_lowercase(name.as_bytes()).is_ok();
                if !is_lower_case_name {
                    return Err(PolicyFailure::nonsense(format!("it wants the header {name:?}, which is no lower-case header name")));
                }
            }
        }
    }
    Ok(wanted)
}

fn check_name(what: &str, name: &str) -> Result<(), PolicyFailure> {
    if (1..=NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(PolicyFailure::nonsense(format!("it wants {what} with {} bytes; 1 to {NAME_BYTES} are allowed", name.len())))
}
