//! How a filtered search runs on one segment: the cheaper of two ways, by estimate.
//!
//! With n rows of which a share p passes, all costs in distances between small codes in a scan:
//!
//! - **scan**: each row that passes, p n. Exact.
//! - **graph sweep**: the graph as if there were no filter, until `ef` rows that pass are found, so nd / p,
//!   where nd are the distances of a search without a filter. Each is of a row that may lie anywhere:
//!   where the codes do not fit into a cache it costs several of a scan, which reads on.
//!
//! They cost the same at p = sqrt(nd / n) where the codes fit (about 10 % of 25,000 rows), and at twice
//! that where they do not (about 6 % of a million). Between the two there is no room for a third way: a
//! walk within the rows that pass, by neighbours' neighbours (ACORN-1: Patel et al. 2024), was measured
//! and left (`docs/adr/0018-two-ways-under-a-filter.md`). A sweep is no choice where p is so small that
//! the nodes it may keep would end it before `ef` that pass are found, however dear a scan is.
//!
//! The estimates hold for filters that have nothing to do with where the query is. One that passes
//! far from it makes a sweep longer than estimated: it ends where it keeps several times `ef`, and a
//! scan follows.
//!
//! Invariants: pure; where the graph could not find more than it must return, a scan is chosen.

use crate::graph::SPREAD_MAX;

/// A way to run a filtered search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Score the rows that pass.
    Scan,
    /// Search the graph over all rows, and keep those that pass.
    GraphSweep,
}

/// What each way costs by estimate, in distances of a scan; infinite where it is no choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    pub scan: f64,
    pub sweep: f64,
}

/// A segment, as far as its size decides.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Deleted ones included.
    pub rows: u32,
    /// Rows that are not deleted.
    pub live: u32,
    /// Bytes of the codes of all rows.
    pub code_bytes: usize,
    /// Neighbours of a row in the graph.
    pub degree: usize,
}

/// Share of the neighbours of an expanded row that were not scored before.
const FRESH_SHARE: f64 = 0.5;
/// What a distance in a graph costs in distances of a scan: where all codes are in a cache, and where few
/// are. Between these sizes it grows with the logarithm of the bytes.
const DISTANCE_SCANS: [f64; 2] = [1.0, 4.0];
const CACHED_BYTES: [f64; 2] = [16e6, 256e6];
/// Share of the rows that pass which a graph search may be asked for, as 1 in so many.
const ASKED_SHARE: u64 = 4;
/// The smallest share that a sweep may be asked for. It keeps [`SPREAD_MAX`] nodes for each that passes,
/// and half of those where fewer pass near the query than elsewhere.
const SWEPT_SHARE_MIN: f64 = 2.0 / SPREAD_MAX as f64;

/// Chooses the way for `k` results with `ef` candidates, where `matching` rows pass.
#[must_use]
pub fn plan(size: Size, matching: u64, ef: usize, k: usize) -> Plan {
    let costs = Costs::of(size, matching, ef, k);
    if costs.scan <= costs.sweep {
        Plan::Scan
    } else {
        Plan::GraphSweep
    }
}

impl Costs {
    /// For the arguments of [`plan`].
    #[must_use]
    pub fn of(size: Size, matching: u64, ef: usize, k: usize) -> Self {
        // Deleted rows are met in the graph as rows that do not pass.
        let matching = matching.min(u64::from(size.live)).min(u64::from(size.rows));
        let ef = ef.max(k).max(1);
        let mut costs = Self {
            scan: matching as f64,
            sweep: f64::INFINITY,
        };
        if size.degree == 0 || matching / ASKED_SHARE <= ef as u64 {
            return costs;
        }
        let pass = matching as f64 / f64::from(size.rows);
        if pass < SWEPT_SHARE_MIN {
            return costs;
        }
        let searched = searched(size.rows, size.degree as f64, ef as f64);
        costs.sweep = searched / pass * distance_scans(size.code_bytes);
        costs
    }
}

fn distance_scans(code_bytes: usize) -> f64 {
    let ([few, many], [cached, beyond]) = (DISTANCE_SCANS, CACHED_BYTES);
    let share = (code_bytes as f64 / cached).ln() / (beyond / cached).ln();
    few + (many - few) * share.clamp(0.0, 1.0)
}

/// Distances of a graph search without a filter.
fn searched(rows: u32, degree: f64, ef: f64) -> f64 {
    (descent(rows, degree) + ef * degree * FRESH_SHARE).min(f64::from(rows))
}

/// Distances on the way to where the query is.
fn descent(rows: u32, degree: f64) -> f64 {
    let degree = degree.max(2.0);
    degree * f64::from(rows).ln().max(0.0) / degree.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 384;
    const DEGREE: usize = 32;

    fn size(rows: u32, live: u32, degree: usize) -> Size {
        Size {
            rows,
            live,
            code_bytes: rows as usize * DIM,
            degree,
        }
    }

    #[test]
    fn few_rows_are_scanned_and_many_swept() {
        for (rows, pass, ef, expected) in [
            (25_000, 0.001, 16, Plan::Scan),
            (25_000, 0.01, 16, Plan::Scan),
            (25_000, 0.09, 16, Plan::Scan),
            (25_000, 0.15, 16, Plan::GraphSweep),
            (25_000, 1.0, 16, Plan::GraphSweep),
            // A wider search is dearer, and a scan is not.
            (25_000, 0.15, 100, Plan::Scan),
            (25_000, 0.5, 100, Plan::GraphSweep),
            (1_000_000, 0.0005, 48, Plan::Scan),
            (1_000_000, 0.05, 48, Plan::Scan),
            // A sweep would cost less and find less.
            (1_000_000, 0.06, 10, Plan::Scan),
            (8_000_000, 0.06, 48, Plan::Scan),
            (8_000_000, 0.07, 48, Plan::GraphSweep),
            (1_000_000, 0.2, 48, Plan::GraphSweep),
            (1_000_000, 1.0, 48, Plan::GraphSweep),
        ] {
            let matching = (f64::from(rows) * pass).round() as u64;
            let chosen = plan(size(rows, rows, DEGREE), matching, ef, 10);
            assert_eq!(chosen, expected, "{rows} rows, {pass} pass, ef {ef}");
        }
    }

    /// Where a scan and a sweep cost the same.
    #[test]
    fn scan_and_sweep_meet_where_they_should() {
        for (rows, ef, from, to) in [(25_000, 16, 0.08, 0.13), (1_000_000, 48, 0.06, 0.07)] {
            let meet = (1..1_000).map(|of| f64::from(of) / 1_000.0).find(|pass| {
                let matching = (f64::from(rows) * pass) as u64;
                let costs = Costs::of(size(rows, rows, DEGREE), matching, ef, 10);
                costs.sweep < costs.scan
            });
            let meet = meet.expect("they meet");
            assert!((from..to).contains(&meet), "{rows} rows: {meet}");
        }
    }

    #[test]
    fn a_distance_costs_more_where_codes_are_not_in_a_cache() {
        for (bytes, want) in [
            (0, 1.0),
            (16_000_000, 1.0),
            (64_000_000, 2.5),
            (256_000_000, 4.0),
            (usize::MAX, 4.0),
        ] {
            let got = distance_scans(bytes);
            assert!((got - want).abs() < 1e-9, "{bytes}: {got}");
        }
    }

    #[test]
    fn the_graph_is_left_alone_where_it_could_not_choose() {
        for (rows, live, matching, degree, ef, k) in [
            // Nothing passes, or there is nothing.
            (1_000_000, 1_000_000, 0, 32, 64, 10),
            (0, 0, 0, 32, 64, 10),
            // Nearly all that passes is asked for.
            (1_000_000, 1_000_000, 400, 32, 64, 300),
            (10_000, 10_000, 10_000, 32, 64, 10_000),
            (100, 100, 100, 32, 64, 10),
            // No graph.
            (1_000_000, 1_000_000, 500_000, 0, 64, 10),
            // Of what passes, only a thousand rows are alive.
            (1_000_000, 1_000, 900_000, 32, 64, 10),
        ] {
            let chosen = plan(size(rows, live, degree), matching, ef, k);
            assert_eq!(chosen, Plan::Scan, "{rows} {live} {matching} {ef} {k}");
        }
    }

    #[test]
    fn deleted_rows_make_a_sweep_longer() {
        let live = Costs::of(size(25_000, 25_000, DEGREE), 5_000, 16, 10);
        let half = Costs::of(size(25_000, 12_500, DEGREE), 2_500, 16, 10);
        assert!((half.sweep - 2.0 * live.sweep).abs() < 1e-6);
    }

    #[test]
    fn no_argument_is_too_large() {
        for ef in [0, 1, usize::MAX] {
            for code_bytes in [0, usize::MAX] {
                let size = Size {
                    rows: u32::MAX,
                    live: u32::MAX,
                    code_bytes,
                    degree: usize::MAX,
                };
                let _ = plan(size, u64::MAX, ef, ef);
            }
        }
    }
}
