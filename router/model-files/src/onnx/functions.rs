//! Functions: operators that a model defines itself. A runtime puts their nodes where they are called, so that ten functions that call
//! each other twice
//! each are a thousand nodes, and one that calls itself is no end of them.

use std::collections::HashMap;

use super::super::error::{Malformed, at_most, shown};
use super::opsets::{Opsets, canonical};
use super::proto::{Function, Node};

/// The functions of a model, by domain and name.
pub(super) struct Functions<'a> {
    places: HashMap<(&'a str, &'a str), usize>,
}

/// Nodes of the graph or of a function, and which functions it calls.
#[derive(Debug, Clone, Default)]
pub(super) struct Body {
    pub(super) nodes: usize,
    pub(super) calls: Vec<usize>,
}

impl<'a> Functions<'a> {
    /// Each once, and none that could be taken for one of the runtime's own operators.
    pub(super) fn read(functions: &'a [Function], opsets: &Opsets) -> Result<Functions<'a>, Malformed> {
        let mut places = HashMap::new();
        for (place, function) in functions.iter().enumerate() {
            let (domain, name) = (canonical(function.domain.as_deref()), function.name.as_deref().unwrap_or_default());
            let at = || format!("function {place}, {}.{}", shown(domain), shown(name));
            if opsets.has(domain) {
                return Err(Malformed::new(at(), "is in a domain of the runtime: must have one of its own"));
            }
            if places.insert((domain, name), place).is_some() {
                return Err(Malformed::new(at(), "is there twice"));
            }
        }
        Ok(Functions { places })
    }

    /// Which function a node calls.
    pub(super) fn called(&self, node: &Node) -> Option<usize> {
        self.places.get(&(canonical(node.domain.as_deref()), node.op_type.as_deref().unwrap_or_default())).copied()
    }
}

/// Fails when the graph would have more nodes than `most` once functions are put in, or no end of them. `bodies` are the functions', then
/// the graph's.
pub(super) fn check_calls(bodies: &[Body], most: usize) -> Result<(), Malformed> {
    let mut sizes: Vec<usize> = bodies.iter().map(|body| body.nodes).collect();
    let mut waiting: Vec<usize> = bodies.iter().map(|body| body.calls.len()).collect();
    let mut callers: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    for (caller, body) in bodies.iter().enumerate() {
        for called in &body.calls {
            if let Some(callers) = callers.get_mut(*called) {
                callers.push(caller);
            }
        }
    }
    // Those that call nothing first; then those whose functions are all done.
    let mut ready: Vec<usize> = (0..bodies.len()).filter(|place| waiting.get(*place) == Some(&0)).collect();
    let mut done = 0;
    while let Some(place) = ready.pop() {
        done += 1;
        let size = sizes.get(place).copied().unwrap_or(0);
        at_most("nodes, with functions put in", size, most)?;
        for caller in callers.get(place).into_iter().flatten() {
            let (Some(total), Some(left)) = (sizes.get_mut(*caller), waiting.get_mut(*caller)) else { continue };
            (*total, *left) = (total.saturating_add(size), left.saturating_sub(1));
            if *left == 0 {
                ready.push(*caller);
            }
        }
    }
    match waiting.iter().position(|left| *left > 0) {
        Some(place) if done < bodies.len() => Err(Malformed::new(format!("function {place}"), "calls itself, or one that does")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(nodes: usize, calls: &[usize]) -> Body {
        Body { nodes, calls: calls.to_vec() }
    }

    #[test]
    fn calls_that_grow_without_end_are_refused() {
        assert_eq!(check_calls(&[body(2, &[]), body(3, &[0, 0]), body(1, &[1])], 8), Ok(()));
        assert!(check_calls(&[body(2, &[]), body(3, &[0, 0]), body(1, &[1])], 7).unwrap_err().place.contains("= 8"));
        assert!(check_calls(&[body(2, &[0]), body(1, &[])], 99).unwrap_err().what.contains("calls itself"));
        assert!(check_calls(&[body(2, &[1]), body(2, &[0]), body(1, &[])], 99).unwrap_err().what.contains("calls itself"));
        let mut doubling: Vec<Body> = vec![body(1, &[])];
        doubling.extend((0..200).map(|before| body(1, &[before, before])));
        assert!(check_calls(&doubling, 100_000).is_err());
    }
}
