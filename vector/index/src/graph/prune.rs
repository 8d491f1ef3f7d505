//! Choosing links: near, but in different directions (Malkov and Yashunin 2016, algorithm 4), and more
//! of them where those are few (Subramanya et al. 2019, as a second pass).

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

/// What is chosen of candidates.
#[derive(Clone, Copy)]
pub struct Choice {
    pub most: usize,
    /// Where fewer than so many are nearer to the node than to any chosen before them, those are chosen
    /// too that are not `alpha` times as near to one.
    pub enough: usize,
    pub alpha: f32,
}

/// Of `candidates` with their scores for one node, best first, those that stay, best first.
pub fn prune(
    space: &Space,
    candidates: &[(u32, f32)],
    choice: Choice,
    room: &mut Room,
    out: &mut Vec<(u32, f32)>,
) {
    out.clear();
    room.kept.clear();
    add(space, candidates, choice.most, 1.0, room, out);
    let enough = choice.enough.min(choice.most);
    if out.len() < enough && out.len() < candidates.len() && choice.alpha > 1.0 {
        add(space, candidates, enough, choice.alpha, room, out);
        out.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    }
}

/// Adds candidates that are not `alpha` times as near to one that stays as to the node.
fn add(
    space: &Space,
    candidates: &[(u32, f32)],
    most: usize,
    alpha: f32,
    room: &mut Room,
    out: &mut Vec<(u32, f32)>,
) {
    for (candidate, score) in candidates {
        if out.len() >= most {
            break;
        }
        if room.kept.contains(candidate) {
            continue;
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
