//! Choosing links: near, but in different directions (Malkov and Yashunin 2016, algorithm 4).

use super::build::Space;
use crate::sq8::CodedQuery;

/// Kept neighbours that a candidate is compared with at once: the nearest occlude the most.
const TOGETHER: usize = 8;

/// Room that pruning works in.
pub struct Room {
    query: CodedQuery,
    products: Vec<i32>,
    scores: Vec<f32>,
    kept: Vec<u32>,
}

impl Room {
    pub fn new(space: &Space) -> Self {
        Self {
            query: space.codes.no_query(),
            products: Vec::new(),
            scores: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// Of `candidates` with their scores for one node, best first, those that stay, at most `most`: each
/// is nearer to the node than to any that stays before it.
pub fn prune(
    space: &Space,
    candidates: &[(u32, f32)],
    most: usize,
    alpha: f32,
    room: &mut Room,
    out: &mut Vec<(u32, f32)>,
) {
    out.clear();
    room.kept.clear();
    for (candidate, score) in candidates {
        if out.len() == most {
            break;
        }
        if !out.is_empty() {
            space.codes.take_for_query(*candidate, &mut room.query);
        }
        // Apart by less than this is nearer than the node.
        let apart = (space.top - score) / alpha;
        let is_hidden = room.kept.chunks(TOGETHER).any(|kept| {
            space.scores(
                *candidate,
                &room.query,
                kept,
                &mut room.products,
                &mut room.scores,
            );
            room.scores.iter().any(|score| space.top - score < apart)
        });
        if !is_hidden {
            out.push((*candidate, *score));
            room.kept.push(*candidate);
        }
    }
}
