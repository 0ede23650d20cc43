//! How an experiment is added to those that there are. Pure.

use serde::Deserialize;

use super::super::percent;
use super::{Arm, CONFIDENCE, Condition, Experiment, Experiments, ExperimentsFault, Layer, ROLLOUT_LAYER};
use crate::vocabulary::Ppm;

/// The layer of experiments that name none.
const LAYER: &str = "experiments";
/// Room for a candidate is kept free from the bottom of the rollout's layer, and for a holdback above this.
const BELOW_HOLDBACK: Ppm = Ppm::ALL.less(100_000);

/// What whoever creates an experiment says of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewExperiment {
    /// Letters, digits, `-` and `_`.
    pub name: String,
    /// A layer's name; one that is not there yet is made. `experiments` unless it is said.
    pub layer: Option<String>,
    /// Its part of the layer's units.
    #[serde(with = "percent")]
    pub percent: Ppm,
    /// Where its units begin; where there is room unless it is said.
    #[serde(default, with = "percent_if_any")]
    pub from_percent: Option<Ppm>,
    /// The first one is control.
    pub arms: Vec<Arm>,
    /// Only queries of which all of this holds are in it.
    #[serde(default)]
    pub when: Vec<Condition>,
    /// See [`Experiment::confidence_percent`].
    #[serde(default, with = "percent_if_any")]
    pub confidence_percent: Option<Ppm>,
    /// See [`Experiment::stop_on_harm`].
    pub stop_on_harm: Option<bool>,
    /// The operator's reason.
    #[serde(default)]
    pub why: String,
}

mod percent_if_any {
    use serde::{Deserialize, Deserializer};

    use super::super::super::percent;
    use crate::vocabulary::Ppm;

    #[derive(Deserialize)]
    struct Some_(#[serde(with = "percent")] Ppm);

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Ppm>, D::Error> {
        Ok(Option::<Some_>::deserialize(deserializer)?.map(|Some_(share)| share))
    }
}

impl Experiments {
    /// The same, with one more. `salts` are random: for the experiment, and for its layer if that is new. `who` and the reason are kept.
    ///
    /// # Errors
    /// What is wrong with it, or that there is no room for it.
    pub fn create(&self, new: NewExperiment, salts: [String; 2], who: &str, now_ms: u64) -> Result<Experiments, ExperimentsFault> {
        let [salt, layer_salt] = salts;
        let layer = new.layer.unwrap_or_else(|| LAYER.to_owned());
        if new.percent == Ppm::ZERO {
            return Err(ExperimentsFault(format!("experiment {}: percent must be more than 0", new.name)));
        }
        let mut after = self.clone();
        if layer != ROLLOUT_LAYER && !after.layers.iter().any(|known| known.name == layer) {
            after.layers.push(Layer { name: layer.clone(), salt: layer_salt });
        }
        let from_percent = match new.from_percent {
            Some(from) => from,
            None => self.room(&layer, new.percent)?,
        };
        let why = if new.why.is_empty() { who.to_owned() } else { format!("{who}: {}", new.why) };
        after.experiments.push(Experiment {
            name: new.name,
            layer,
            salt,
            from_percent,
            percent: new.percent,
            arms: new.arms,
            when: new.when,
            confidence_percent: new.confidence_percent.unwrap_or(CONFIDENCE),
            stop_on_harm: new.stop_on_harm.unwrap_or(true),
            started_ms: now_ms,
            stopped_ms: None,
            why,
        });
        after.check()?;
        Ok(after)
    }

    /// The same without the one of this name, and without its layer where no other is in it.
    #[must_use]
    pub fn without(&self, name: &str) -> Experiments {
        let mut after = self.clone();
        after.experiments.retain(|experiment| experiment.name != name);
        let layer = self.named(name).map(|experiment| experiment.layer.as_str());
        if let Some(layer) = layer.filter(|layer| !after.experiments.iter().any(|left| left.layer == *layer)) {
            after.layers.retain(|known| known.name != layer);
        }
        after
    }

    /// Where as many units as these begin that are in no experiment of the layer. In the rollout's layer they are as far up as they may: a candidate has its
    /// units from the bottom, a holdback from the top.
    fn room(&self, layer: &str, percent: Ppm) -> Result<Ppm, ExperimentsFault> {
        let mut taken: Vec<(u32, u32)> = self
            .running()
            .filter(|experiment| experiment.layer == layer)
            .map(|experiment| (experiment.from_percent.get(), experiment.from_percent.get().saturating_add(experiment.percent.get())))
            .collect();
        taken.sort_unstable();
        let starts = std::iter::once(0).chain(taken.iter().map(|(_, end)| *end));
        let ends = taken.iter().map(|(start, _)| *start).chain([Ppm::ALL.get()]);
        let gaps: Vec<(u32, u32)> = starts.zip(ends).filter(|(start, end)| end > start).collect();
        let many = percent.get();
        let fits = |(start, end): &&(u32, u32)| end - start >= many;
        let found = if layer == ROLLOUT_LAYER {
            let below =
                gaps.iter().rev().map(|(start, end)| (*start, (*end).min(BELOW_HOLDBACK.get()))).find(|(start, end)| *end >= start + many);
            below.or_else(|| gaps.iter().rev().find(fits).copied()).map(|(_, end)| end - many)
        } else {
            gaps.iter().find(fits).map(|(start, _)| *start)
        };
        found.and_then(Ppm::new).ok_or_else(|| {
            let most = gaps.iter().map(|(start, end)| end - start).max().and_then(Ppm::new).unwrap_or(Ppm::ZERO);
            ExperimentsFault(format!(
                "layer {layer} has no {percent} % of its units free in one piece, {most} % at most: take less, or another layer"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{arm, experiment};
    use super::*;

    fn new(name: &str, percent: &str) -> NewExperiment {
        let arms = r#"[{"name": "control", "pool": "live"}, {"name": "big", "pool": "exp"}]"#;
        serde_json::from_str(&format!(r#"{{"name": "{name}", "percent": "{percent}", "arms": {arms}}}"#)).unwrap()
    }

    fn create(all: &Experiments, new: NewExperiment) -> Result<Experiments, ExperimentsFault> {
        let salts = ["salt-of", "layer-of"].map(|what| format!("{what}-{}-{}", new.name, all.experiments.len()));
        all.create(new, salts, "ann", 7_000)
    }

    fn from(all: &Experiments, name: &str) -> String {
        all.named(name).unwrap().from_percent.to_string()
    }

    #[test]
    fn it_gets_what_is_free() {
        let all = create(&Experiments::default(), new("a", "30")).unwrap();
        let one = all.named("a").unwrap();
        assert_eq!((one.layer.as_str(), one.started_ms, one.why.as_str(), all.layers.len()), ("experiments", 7_000, "ann", 1));
        let all = create(&all, NewExperiment { why: "tonight".to_owned(), ..new("b", "20") }).unwrap();
        assert_eq!(
            (from(&all, "a"), from(&all, "b"), all.named("b").unwrap().why.as_str()),
            ("0".to_owned(), "30".to_owned(), "ann: tonight")
        );
        let all = create(&all.stopped("a", 8_000, "over"), new("c", "25")).unwrap();
        assert_eq!((from(&all, "c"), all.layers.len()), ("0".to_owned(), 1));
        let fault = create(&all, new("d", "60")).unwrap_err().to_string();
        assert_eq!(fault, "layer experiments has no 60 % of its units free in one piece, 50 % at most: take less, or another layer");
        let all = create(&all, NewExperiment { layer: Some("other".to_owned()), ..new("d", "60") }).unwrap();
        assert_eq!((from(&all, "d"), all.layers.len()), ("0".to_owned(), 2));
        assert!(create(&all, new("d", "1")).unwrap_err().to_string().contains("there are two of this name"));
        assert!(create(&all, new("e", "0")).unwrap_err().to_string().contains("more than 0"));
        assert_eq!(all.without("d").layers.len(), 1);
        let mut by_hand = all.clone();
        by_hand.layers.push(Layer { name: "empty".to_owned(), salt: "salt-of-empty".to_owned() });
        assert_eq!(by_hand.without("d").layers.len(), 2, "who wrote a layer by hand keeps it");
    }

    #[test]
    fn in_the_rollouts_layer_it_is_out_of_the_candidates_way() {
        let of_rollout = |name: &str, percent: &str| NewExperiment { layer: Some("rollout".to_owned()), ..new(name, percent) };
        let all = create(&Experiments::default(), of_rollout("a", "20")).unwrap();
        let all = create(&all, of_rollout("b", "15")).unwrap();
        assert_eq!((from(&all, "a"), from(&all, "b"), all.layers.len()), ("70".to_owned(), "55".to_owned(), 0));
        let whole = create(&Experiments::default(), of_rollout("c", "100")).unwrap();
        assert_eq!(from(&whole, "c"), "0");
    }

    #[test]
    fn what_is_said_of_it_is_kept() {
        let more = r#"{"name": "a", "percent": 12.5, "from_percent": "50", "confidence_percent": 99, "stop_on_harm": false,
            "arms": [{"name": "x", "pool": "live", "weight": 2}, {"name": "y", "version": "v7"}], "when": [{"field": "path", "prefix": "/de"}]}"#;
        let all = create(&Experiments::default(), serde_json::from_str(more).unwrap()).unwrap();
        let one = all.named("a").unwrap();
        let expected = Experiment {
            arms: vec![Arm { weight: 2, ..arm("x", "live") }, Arm { pool: None, version: Some("v7".to_owned()), ..arm("y", "") }],
            ..experiment("a", "experiments", ("50", "12.5"))
        };
        assert_eq!((&one.arms, one.percent, one.from_percent), (&expected.arms, expected.percent, expected.from_percent));
        assert_eq!((one.confidence_percent.to_string(), one.stop_on_harm, one.when.len()), ("99".to_owned(), false, 1));
    }
}
