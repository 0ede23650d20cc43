//! A walk from a tree's root over all its nodes, without recursion.
//!
//! Invariant: a tree that is walked to its end has no cycle and no node with two parents; memory is one bit's byte a node and two numbers
//! a level.

use super::error::Malformed;

/// What was seen of the nodes, numbered from 0.
pub(super) struct Walk {
    seen: Vec<bool>,
    reached: usize,
    /// Nodes that are still to be looked at, and how deep each is.
    open: Vec<(usize, usize)>,
    depth: usize,
}

/// A walk over nodes of which several may have the same child, as long as none is above itself.
///
/// Invariant: what is walked to its end has no cycle, and no path longer than the limit; each node is looked at once, however many ways
/// lead to it.
pub(super) struct Shared {
    states: Vec<State>,
    open: Vec<(usize, usize)>,
    depth: usize,
}

/// What is known of a node.
#[derive(Debug, Clone, Copy)]
enum State {
    New,
    /// Its children are being looked at.
    Open,
    /// The longest path down from it has so many nodes.
    Done(u32),
}

impl Shared {
    /// Over `nodes` nodes, none of them seen yet, `depth` levels deep at most.
    pub(super) fn new(nodes: usize, depth: usize) -> Shared {
        Shared { states: vec![State::New; nodes], open: Vec::new(), depth }
    }

    /// Walks all that is below a root.
    pub(super) fn below(&mut self, root: usize, children: impl Fn(usize) -> [Option<usize>; 2]) -> Result<(), Astray> {
        self.reach(root)?;
        while let Some((node, side)) = self.open.last_mut() {
            let (node, next) = (*node, children(*node).get(*side).copied());
            *side += 1;
            match next {
                Some(Some(child)) => self.reach(child)?,
                Some(None) => {}
                None => {
                    let heights = children(node).into_iter().flatten().map(|child| self.height(child));
                    let height = heights.max().unwrap_or(0).saturating_add(1);
                    if usize::try_from(height).map_or(true, |height| height > self.depth.saturating_add(1)) {
                        return Err(Astray::Deep(node));
                    }
                    if let Some(state) = self.states.get_mut(node) {
                        *state = State::Done(height);
                    }
                    self.open.pop();
                }
            }
        }
        Ok(())
    }

    fn height(&self, node: usize) -> u32 {
        match self.states.get(node) {
            Some(State::Done(height)) => *height,
            _ => 0,
        }
    }

    fn reach(&mut self, node: usize) -> Result<(), Astray> {
        let state = self.states.get_mut(node).ok_or(Astray::Absent(node))?;
        match state {
            State::Done(_) => return Ok(()),
            State::Open => return Err(Astray::Twice(node)),
            State::New if self.open.len() > self.depth => return Err(Astray::Deep(node)),
            State::New => *state = State::Open,
        }
        self.open.push((node, 0));
        Ok(())
    }

    /// Nodes that were not reached.
    pub(super) fn unreached(&self) -> impl Iterator<Item = usize> + '_ {
        self.states.iter().enumerate().filter(|(_, state)| matches!(state, State::New)).map(|(node, _)| node)
    }
}

/// Why a walk ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Astray {
    /// Reached a second time: it is above itself, or has two parents where only one is allowed.
    Twice(usize),
    /// Deeper than is allowed.
    Deep(usize),
    /// There is no such node.
    Absent(usize),
}

impl Walk {
    /// Over `nodes` nodes, none of them seen yet, `depth` levels deep at most.
    pub(super) fn new(nodes: usize, depth: usize) -> Walk {
        Walk { seen: vec![false; nodes], reached: 0, open: Vec::new(), depth }
    }

    /// Walks one tree; `children` gives those of an inner node, and none of a leaf.
    pub(super) fn tree(&mut self, root: usize, children: impl Fn(usize) -> [Option<usize>; 2]) -> Result<(), Astray> {
        self.reach(root, 0)?;
        while let Some((node, level)) = self.open.pop() {
            for child in children(node).into_iter().flatten() {
                self.reach(child, level + 1)?;
            }
        }
        Ok(())
    }

    fn reach(&mut self, node: usize, level: usize) -> Result<(), Astray> {
        let seen = self.seen.get_mut(node).ok_or(Astray::Absent(node))?;
        if std::mem::replace(seen, true) {
            return Err(Astray::Twice(node));
        }
        if level > self.depth {
            return Err(Astray::Deep(node));
        }
        self.reached += 1;
        self.open.push((node, level));
        Ok(())
    }

    /// Nodes that were reached.
    pub(super) fn reached(&self) -> usize {
        self.reached
    }

    /// Nodes that were not.
    pub(super) fn unreached(&self) -> impl Iterator<Item = usize> + '_ {
        self.seen.iter().enumerate().filter(|(_, seen)| !**seen).map(|(node, _)| node)
    }
}

impl Astray {
    /// As a fault of the node that `name` names.
    pub(super) fn fault(self, depth: usize, name: impl Fn(usize) -> String) -> Malformed {
        match self {
            Astray::Twice(node) => Malformed::new(name(node), "is reached twice: it has two parents, or is above itself"),
            Astray::Deep(node) => Malformed::new(name(node), format!("is deeper than {depth} levels")),
            Astray::Absent(node) => Malformed::new(name(node), "is a child, and there is no such node"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(children: &[Option<[usize; 2]>]) -> Result<usize, Astray> {
        let mut walk = Walk::new(children.len(), 2);
        walk.tree(0, |node| children[node].map_or([None; 2], |children| children.map(Some)))?;
        assert_eq!(walk.reached() + walk.unreached().count(), children.len());
        Ok(walk.reached())
    }

    #[test]
    fn a_tree_is_walked_and_anything_else_is_not() {
        assert_eq!(walk(&[None]), Ok(1));
        assert_eq!(walk(&[Some([1, 2]), None, Some([3, 4]), None, None]), Ok(5));
        assert_eq!(walk(&[Some([1, 2]), None, None, None]), Ok(3), "one that nobody points to");
        assert_eq!(walk(&[Some([0, 1]), None]), Err(Astray::Twice(0)));
        assert_eq!(walk(&[Some([1, 1]), None]), Err(Astray::Twice(1)));
        assert_eq!(walk(&[Some([1, 2]), Some([0, 3]), None, None]), Err(Astray::Twice(0)));
        assert_eq!(walk(&[Some([1, 9]), None]), Err(Astray::Absent(9)));
        assert_eq!(walk(&[Some([1, 2]), Some([3, 4]), Some([3, 5]), None, None, None]), Err(Astray::Twice(3)));
        let chain = [Some([1, 2]), Some([3, 4]), None, Some([5, 6]), None, None, None];
        assert_eq!(walk(&chain), Err(Astray::Deep(5)));
    }

    fn share(children: &[Option<[usize; 2]>]) -> Result<usize, Astray> {
        let mut walk = Shared::new(children.len(), 2);
        walk.below(0, |node| children[node].map_or([None; 2], |children| children.map(Some)))?;
        Ok(children.len() - walk.unreached().count())
    }

    #[test]
    fn a_child_may_be_shared_and_a_cycle_is_none() {
        assert_eq!(share(&[None, None]), Ok(1));
        assert_eq!(share(&[Some([1, 1]), None]), Ok(2));
        assert_eq!(share(&[Some([1, 2]), Some([2, 2]), None]), Ok(3));
        assert_eq!(share(&[Some([0, 1]), None]), Err(Astray::Twice(0)));
        assert_eq!(share(&[Some([1, 2]), Some([2, 2]), Some([1, 1])]), Err(Astray::Twice(1)));
        assert_eq!(share(&[Some([1, 9]), None]), Err(Astray::Absent(9)));
        assert_eq!(share(&[Some([1, 1]), Some([2, 2]), Some([3, 3]), None]), Err(Astray::Deep(3)));
        // Deep by the longest of several ways, whichever is walked first.
        let ways = |first: usize, second: usize| [Some([first, second]), Some([2, 2]), Some([3, 3]), None];
        assert_eq!(share(&ways(1, 2)), Err(Astray::Deep(3)));
        assert_eq!(share(&ways(2, 1)), Err(Astray::Deep(0)));
    }
}
