//! What is known after some windows, as explicit bytes: any router goes on from here.

use crate::bytes::{Reader, Writer};
use crate::config::{Config, MOST_METRICS, NAME_BYTES};
use crate::integrity::Integrity;
use crate::latency::History;
use crate::track::Track;

/// The layout of the bytes. A later one gets another number, and this one stays readable or is refused by name.
const VERSION: u8 = 1;
/// What a state begins with.
const MARK: [u8; 3] = *b"SBG";
/// Tracks that a state may hold: errors, latency, and the config's metrics.
const MOST_TRACKS: usize = MOST_METRICS + 2;

/// The step of the rollout, and what arrived since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Step {
    pub(crate) index: u32,
    pub(crate) share_ppm: u32,
    pub(crate) is_last: bool,
    /// The candidate's requests.
    pub(crate) samples: u64,
    pub(crate) ms: u64,
    /// Engagement slices of this step.
    pub(crate) engagement: u64,
}

/// What is known after some windows.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// The next window of each slice.
    pub(crate) next_traffic: u64,
    pub(crate) next_engagement: u64,
    /// `None` before the first traffic slice.
    pub(crate) step: Option<Step>,
    pub(crate) errors: Track,
    pub(crate) latency: Track,
    pub(crate) history: History,
    /// In the order of the config's metrics.
    pub(crate) metrics: Vec<Track>,
    pub(crate) integrity: Integrity,
}

impl State {
    /// Before the first window.
    #[must_use]
    pub fn new(config: &Config) -> State {
        let track = |metric: &crate::config::Metric| Track::new(&metric.id, Track::points_of(metric), metric.start);
        State {
            next_traffic: 0,
            next_engagement: 0,
            step: None,
            errors: track(&config.errors),
            latency: Track::new("latency", Track::LATENCY_POINTS, config.latency.start),
            history: History::default(),
            metrics: config.metrics.iter().map(track).collect(),
            integrity: Integrity::new(config),
        }
    }

    /// The bytes for the next call. 3 KiB with five metrics; 2 KiB more for each whose groups are counted.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(8 * 1024);
        MARK.iter().for_each(|byte| writer.u8(*byte));
        writer.u8(VERSION);
        writer.u64(self.next_traffic);
        writer.u64(self.next_engagement);
        writer.u8(u8::from(self.step.is_some()));
        if let Some(step) = &self.step {
            writer.u32(step.index);
            writer.u32(step.share_ppm);
            writer.u8(u8::from(step.is_last));
            writer.u64(step.samples);
            writer.u64(step.ms);
            writer.u64(step.engagement);
        }
        self.history.write(&mut writer);
        self.integrity.write(&mut writer);
        writer.u8(u8::try_from(self.metrics.len() + 2).unwrap_or(u8::MAX));
        for track in [&self.errors, &self.latency].into_iter().chain(&self.metrics) {
            track.write(&mut writer);
        }
        writer.into_bytes()
    }

    /// Reads what [`State::to_bytes`] wrote; no bytes are the state before the first window. A metric that the config no longer has is
    /// dropped, and one that the state does not have starts anew.
    ///
    /// # Errors
    /// What is wrong with the bytes, and where.
    pub fn from_bytes(config: &Config, bytes: &[u8]) -> Result<State, String> {
        let mut state = State::new(config);
        if bytes.is_empty() {
            return Ok(state);
        }
        let mut reader = Reader::new(bytes);
        for byte in MARK {
            if reader.u8("its mark")? != byte {
                return Err("the state is not one of rollback-guardrail".to_owned());
            }
        }
        let version = reader.u8("its version")?;
        if version != VERSION {
            return Err(format!("the state is of version {version}, and this policy reads version {VERSION}"));
        }
        state.next_traffic = reader.u64("the next traffic window")?;
        state.next_engagement = reader.u64("the next engagement window")?;
        state.step = reader.bool("whether there is a step")?.then(|| read_step(&mut reader)).transpose()?;
        state.history = History::read(&mut reader)?;
        state.integrity = Integrity::read(&mut reader)?;
        state.read_tracks(&mut reader)?;
        reader.end()?;
        Ok(state)
    }

    fn read_tracks(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        let tracks = usize::from(reader.u8("the number of metrics")?);
        if tracks > MOST_TRACKS {
            return Err(reader.refuse("the number of metrics", &tracks.to_string(), "18 at most"));
        }
        for _ in 0..tracks {
            let track = Track::read(reader)?;
            if track.id.is_empty() || track.id.len() > NAME_BYTES {
                return Err(reader.refuse("a metric's id", &track.id, "1 to 64 bytes"));
            }
            let slots = [&mut self.errors, &mut self.latency].into_iter().chain(&mut self.metrics);
            if let Some(slot) = slots.into_iter().find(|slot| slot.id == track.id && slot.has_points_of(&track)) {
                *slot = track;
            }
        }
        Ok(())
    }
}

fn read_step(reader: &mut Reader<'_>) -> Result<Step, String> {
    let index = reader.u32("the step")?;
    let share_ppm = reader.u32("the step's share")?;
    if share_ppm > 1_000_000 {
        return Err(reader.refuse("the step's share", &share_ppm.to_string(), "1000000 at most"));
    }
    Ok(Step {
        index,
        share_ppm,
        is_last: reader.bool("whether the step is the last")?,
        samples: reader.u64("the step's samples")?,
        ms: reader.u64("the step's length")?,
        engagement: reader.u64("the step's engagement windows")?,
    })
}
