//! Every node can be reached: pruning may take a node's last link from elsewhere.

use super::{DEGREE, Links, NONE};
use crate::pace::{Steps, Stopped};
use std::collections::VecDeque;

/// All nodes in the order of a walk from the entries, breadth first; those that it does not get to
/// last.
pub fn walk(links: &Links, entries: &[u32], nodes: usize) -> Vec<u32> {
    let mut seen = vec![false; nodes];
    let mut order = Vec::with_capacity(nodes);
    let mut next = VecDeque::new();
    let mut see = |node: u32, next: &mut VecDeque<u32>| {
        if let Some(seen) = seen.get_mut(node as usize)
            && !std::mem::replace(seen, true)
        {
            next.push_back(node);
        }
    };
    for entry in entries {
        see(*entry, &mut next);
        // One entry's surroundings before the next entry.
        while let Some(node) = next.pop_front() {
            order.push(node);
            links.of(node).iter().for_each(|link| see(*link, &mut next));
        }
    }
    order.extend((0..nodes as u32).filter(|node| !seen.get(*node as usize).is_some_and(|x| *x)));
    order
}

/// Nodes that no walk from the entries gets to.
pub fn unreachable(links: &Links, entries: &[u32], nodes: usize) -> Vec<u32> {
    let mut reached = Reached::new(nodes);
    entries.iter().for_each(|entry| reached.from(*entry, links));
    reached.lost()
}

/// What walks have got to.
struct Reached {
    seen: Vec<bool>,
    next: Vec<u32>,
}

impl Reached {
    fn new(nodes: usize) -> Self {
        Self {
            seen: vec![false; nodes],
            next: Vec::new(),
        }
    }

    fn has(&self, node: u32) -> bool {
        self.seen.get(node as usize).is_some_and(|seen| *seen)
    }

    /// Walks on from a node: each node is looked at once in all walks together.
    fn from(&mut self, node: u32, links: &Links) {
        self.next.push(node);
        while let Some(node) = self.next.pop() {
            if let Some(seen) = self.seen.get_mut(node as usize)
                && !std::mem::replace(seen, true)
            {
                self.next.extend(links.of(node));
            }
        }
    }

    fn lost(&self) -> Vec<u32> {
        let all = (0..).zip(&self.seen);
        let lost = all.filter(|(_, seen)| !**seen);
        lost.map(|(node, _)| node).collect()
    }
}

/// Gives every node that cannot be reached a link from one that it is linked to, where there is room,
/// else from one that is linked from there, and makes it an entry where there is none.
pub fn repair(
    links: &mut Links,
    entries: &mut Vec<u32>,
    steps: &mut Steps<'_>,
) -> Result<(), Stopped> {
    let mut reached = Reached::new(links.0.len() / DEGREE);
    entries.iter().for_each(|entry| reached.from(*entry, links));
    let mut lost = reached.lost();
    while !lost.is_empty() {
        let before = lost.len();
        for node in &lost {
            steps.step()?;
            if !reached.has(*node)
                && let Some(from) = giver(links, &reached, *node)
                && let Some(free) = links.of_mut(from).iter_mut().find(|link| **link == NONE)
            {
                *free = *node;
                reached.from(*node, links);
            }
        }
        lost.retain(|node| !reached.has(*node));
        if lost.len() == before
            && let Some(first) = lost.first()
        {
            entries.push(*first);
            reached.from(*first, links);
            lost.retain(|node| !reached.has(*node));
        }
    }
    steps.step()
}

/// A node that can be reached, has room for a link, and is near to this one: the nearest of those it is
/// linked to, or a neighbour of one of them.
fn giver(links: &Links, reached: &Reached, node: u32) -> Option<u32> {
    let has_room = |node: &u32| links.of(*node).len() < DEGREE;
    let near = || {
        let near = links.of(node).iter().copied();
        near.filter(|near| reached.has(*near))
    };
    near().find(has_room).or_else(|| {
        let further = near().flat_map(|near| links.of(near).iter().copied());
        further.into_iter().find(has_room)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Hot;
    use crate::pace::Pace;
    use proptest::prelude::*;

    fn links_of(all: &[Vec<u32>]) -> Links {
        let mut links = Links(Hot::filled(NONE, all.len() * DEGREE));
        for (node, to) in (0..).zip(all) {
            links
                .of_mut(node)
                .iter_mut()
                .zip(to)
                .for_each(|(link, to)| *link = *to);
        }
        links
    }

    fn repaired(all: &[Vec<u32>], entries: &[u32]) -> (Links, Vec<u32>) {
        let mut links = links_of(all);
        let mut entries = entries.to_vec();
        repair(&mut links, &mut entries, &mut Pace::free().steps()).unwrap();
        assert_eq!(unreachable(&links, &entries, all.len()), [0u32; 0]);
        (links, entries)
    }

    /// A node with all its links, to `from` and those after it.
    fn full(from: u32) -> Vec<u32> {
        (from..from + DEGREE as u32).collect()
    }

    #[test]
    fn who_gives_a_lost_node_a_link() {
        let end = DEGREE as u32 + 1;
        let leaf = || Vec::new();
        let star = |more: Vec<Vec<u32>>| -> Vec<Vec<u32>> {
            let leaves = (1..end).map(|_| leaf());
            [full(1)].into_iter().chain(leaves).chain(more).collect()
        };
        // (links of the lost nodes, who links to the first of them, or that it is an entry)
        type Case<'a> = (&'a str, &'a [&'a [u32]], Option<u32>);
        let cases: [Case<'_>; 5] = [
            ("the nearest with room", &[&[3, 4]], Some(3)),
            ("one with none is passed over", &[&[0, 4]], Some(4)),
            ("a neighbour of it, if need be", &[&[0]], Some(1)),
            ("a chain, from its end", &[&[end + 1], &[2]], Some(end + 1)),
            ("nobody", &[&[]], None),
        ];
        for (case, lost, giver) in cases {
            let lost = lost.iter().map(|links| links.to_vec());
            let (links, entries) = repaired(&star(lost.collect()), &[0]);
            let given = (0..end + 2).find(|node| links.of(*node).contains(&end));
            let added = usize::from(giver.is_none());
            assert_eq!((given, entries.len() - 1), (giver, added), "{case}");
        }
    }

    proptest! {
        #[test]
        fn everything_is_in_reach_and_no_link_is_lost(
            all in proptest::collection::vec(proptest::collection::vec(0u32..60, 0..=DEGREE), 60),
            entry in 0u32..60,
        ) {
            let (links, entries) = repaired(&all, &[entry]);
            for (node, to) in (0..).zip(&all) {
                prop_assert!(links.of(node).starts_with(to));
            }
            prop_assert!(entries.len() <= 1 + all.len());
        }
    }
}
