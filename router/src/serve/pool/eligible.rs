//! Which endpoints of a pool are chosen from, worked out when one of them changes. Pure.

/// How one endpoint stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// It may have its share.
    pub(super) is_available: bool,
    /// There is an address to connect to.
    pub(super) is_resolved: bool,
    /// It may have some queries as probes.
    pub(super) is_half_open: bool,
}

/// What a query is sent to one of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Eligible {
    /// Places in the pool.
    pub(super) places: Vec<usize>,
    /// Those that want probes.
    pub(super) half_open: Vec<usize>,
    /// In a panic, those of `places` that may have their share: where a second attempt goes.
    pub(super) sound: Vec<usize>,
}

/// Whether so few of a pool are healthy that all are used: fewer than `threshold` percent. Half of a pool is not fewer than 50 %, so that one of
/// two that is dead gets nothing.
pub(super) fn panics(available: usize, total: usize, threshold: u32) -> bool {
    available * 100 < usize::try_from(threshold).unwrap_or(0) * total
}

impl Eligible {
    /// The available ones; in a panic, or where there is none, all that have an address: what says that they are dead may be wrong, and
    /// no answer is certainly worse.
    pub(super) fn of(standings: &[Standing], threshold: u32) -> Eligible {
        let those = |are: fn(&Standing) -> bool| -> Vec<usize> {
            let all = standings.iter().enumerate();
            all.filter(|(_, standing)| are(standing)).map(|(index, _)| index).collect()
        };
        let half_open = those(|standing| standing.is_half_open);
        let available = those(|standing| standing.is_available);
        if !available.is_empty() && !panics(available.len(), standings.len(), threshold) {
            return Eligible { places: available, half_open, sound: Vec::new() };
        }
        let resolved = those(|standing| standing.is_resolved);
        let places = if resolved.is_empty() { those(|_| true) } else { resolved };
        Eligible { places, half_open, sound: available }
    }

    /// What an attempt chooses from. A second one, where the first went to `avoid`, was promised more than another endpoint that is dead.
    pub(super) fn places(&self, avoid: Option<usize>) -> &[usize] {
        let has_another = avoid.is_some_and(|avoid| self.sound.iter().any(|place| *place != avoid));
        if has_another { &self.sound } else { &self.places }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Standing = Standing { is_available: true, is_resolved: true, is_half_open: false };
    const DEAD: Standing = Standing { is_available: false, is_resolved: true, is_half_open: false };
    const UNKNOWN: Standing = Standing { is_available: false, is_resolved: false, is_half_open: false };

    fn places(standings: &[Standing], threshold: u32) -> Vec<usize> {
        Eligible::of(standings, threshold).places
    }

    #[test]
    fn half_of_a_pool_is_enough_and_less_is_a_panic() {
        assert_eq!(places(&[WELL, DEAD], 50), [0]);
        assert_eq!(places(&[DEAD, WELL, WELL], 50), [1, 2]);
        assert_eq!(places(&[DEAD, WELL, DEAD], 50), [0, 1, 2]);
        assert_eq!(places(&[DEAD, WELL, DEAD, WELL], 50), [1, 3]);
    }

    #[test]
    fn the_threshold_is_the_operators() {
        assert_eq!(places(&[WELL, DEAD], 51), [0, 1]);
        assert_eq!(places(&[DEAD, WELL, DEAD, DEAD, DEAD], 20), [1]);
        assert_eq!(places(&[DEAD, WELL, DEAD, DEAD, DEAD], 0), [1]);
    }

    #[test]
    fn where_none_is_healthy_all_are_tried_that_have_an_address() {
        assert_eq!(places(&[DEAD, DEAD], 0), [0, 1]);
        assert_eq!(places(&[DEAD, UNKNOWN], 50), [0]);
        assert_eq!(places(&[UNKNOWN, UNKNOWN], 50), [0, 1]);
        assert_eq!(places(&[], 50), [0; 0]);
    }

    #[test]
    fn probes_go_on_in_a_panic_so_that_it_can_end() {
        let half_open = Standing { is_half_open: true, ..DEAD };
        assert_eq!(Eligible::of(&[WELL, half_open], 50), Eligible { places: vec![0], half_open: vec![1], sound: vec![] });
        assert_eq!(Eligible::of(&[DEAD, half_open, WELL], 50), Eligible { places: vec![0, 1, 2], half_open: vec![1], sound: vec![2] });
    }
}
