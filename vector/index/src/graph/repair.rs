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
    let mut seen = vec![false; nodes];
    let mut next: Vec<u32> = entries.to_vec();
    while let Some(node) = next.pop() {
        if let Some(seen) = seen.get_mut(node as usize)
            && !std::mem::replace(seen, true)
        {
            next.extend(links.of(node));
        }
    }
    (0..)
        .zip(&seen)
        .filter(|(_, seen)| !**seen)
        .map(|(node, _)| node)
        .collect()
}

/// Gives every node that cannot be reached a link from one that it is linked to, where there is room,
/// and makes it an entry where there is none.
pub fn repair(
    links: &mut Links,
    entries: &mut Vec<u32>,
    steps: &mut Steps<'_>,
) -> Result<(), Stopped> {
    let nodes = links.0.len() / DEGREE;
    let mut lost = unreachable(links, entries, nodes);
    while !lost.is_empty() {
        steps.step()?;
        let before = lost.len();
        let is_lost = |node: &u32| lost.binary_search(node).is_ok();
        for node in &lost {
            let near: Vec<u32> = links.of(*node).to_vec();
            let from = near
                .iter()
                .find(|near| !is_lost(near) && links.of(**near).len() < DEGREE);
            if let Some(from) = from
                && let Some(free) = links.of_mut(*from).iter_mut().find(|link| **link == NONE)
            {
                *free = *node;
            }
        }
        lost = unreachable(links, entries, nodes);
        if lost.len() == before
            && let Some(first) = lost.first()
        {
            entries.push(*first);
            lost = unreachable(links, entries, nodes);
        }
    }
    steps.step()
}
