//! How a filtered search runs on one segment: the cheapest of three ways, by estimate.
//!
//! With n rows of which a share p passes, all costs in distances between small codes in a scan:
//!
//! - **scan**: each row that passes, p n. Exact.
//! - **graph sweep**: the graph as if there were no filter, until `ef` rows that pass are found, so nd / p,
//!   where nd are the distances of a search without a filter. It equals the scan at p = sqrt(nd / n):
//!   about 10 % of 25,000 rows, 3 % of a million.
//! - **two-hop** (ACORN-1: Patel et al. 2024, section 6.2): only rows that pass are scored and
//!   expanded; where neighbours do not pass, their neighbours stand in. It looks at `degree / p` ids
//!   a step, at most `degree` squared, in lists that each are fetched from memory. Where the filter leaves a
//!   step too few of them, the graph falls apart: then it is no choice.
//!
//! The estimates hold for filters that have nothing to do with where the query is. One that passes
//! far from it makes a sweep longer than estimated: who runs one should stop it where it has cost
//! what [`Costs::scan`] says, and scan.
//!
//! Invariants: pure; where the graph could not find more than it must return, a scan is chosen.

/// A way to run a filtered search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Score the rows that pass.
    Scan,
    /// Search the graph over all rows, and keep those that pass.
    GraphSweep,
    /// Search the graph over the rows that pass, with neighbours' neighbours.
    TwoHop,
}

/// What each way costs by estimate, in distances of a scan; infinite where it is no choice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    pub scan: f64,
    pub sweep: f64,
    pub two_hop: f64,
}

/// Share of the neighbours of an expanded row that were not scored before.
const FRESH_SHARE: f64 = 0.5;
/// Cost of a distance in a graph, whose rows lie anywhere, against one in a scan.
const GRAPH_DISTANCE_SCANS: f64 = 1.0;
/// Costs in components of a vector: of a distance beside its components, of fetching a list of
/// neighbours, of testing whether a row passes.
const DISTANCE_COMPONENTS: f64 = 64.0;
const LIST_COMPONENTS: f64 = 128.0;
const TEST_COMPONENTS: f64 = 2.0;
/// Below so many rows the way in through the upper layers is too short for two-hop to pay.
const TWO_HOP_ROWS_MIN: u32 = 200_000;
/// Rows that pass, among a row's neighbours and theirs, with which the graph still holds together.
const TWO_HOP_NEIGHBOURS_MIN: f64 = 16.0;
/// How much wider a two-hop search must be to find as much.
const TWO_HOP_EF: f64 = 2.0;
/// Share of the rows that pass which a graph search may be asked for, as 1 in so many.
const ASKED_SHARE: u64 = 4;

/// Chooses the way for `k` results with `ef` candidates on a segment of `rows` rows, deleted ones
/// included, of which `live` are not deleted and `matching` pass. `degree` is the number of
/// neighbours of a row in the graph's lowest layer, `dim` the components of a vector.
#[must_use]
pub fn plan(
    rows: u32,
    live: u32,
    matching: u64,
    dim: usize,
    degree: usize,
    ef: usize,
    k: usize,
) -> Plan {
    let costs = Costs::of(rows, live, matching, dim, degree, ef, k);
    if costs.scan <= costs.sweep && costs.scan <= costs.two_hop {
        Plan::Scan
    } else if costs.sweep <= costs.two_hop {
        Plan::GraphSweep
    } else {
        Plan::TwoHop
    }
}

impl Costs {
    /// For the arguments of [`plan`].
    #[must_use]
    pub fn of(
        rows: u32,
        live: u32,
        matching: u64,
        dim: usize,
        degree: usize,
        ef: usize,
        k: usize,
    ) -> Self {
        // Deleted rows are met in the graph as rows that do not pass.
        let matching = matching.min(u64::from(live)).min(u64::from(rows));
        let ef = ef.max(k).max(1);
        let mut costs = Self {
            scan: matching as f64,
            sweep: f64::INFINITY,
            two_hop: f64::INFINITY,
        };
        if degree == 0 || matching / ASKED_SHARE <= ef as u64 {
            return costs;
        }
        let (degree, ef) = (degree as f64, ef as f64);
        let pass = matching as f64 / f64::from(rows);
        costs.sweep = searched(rows, degree, ef) / pass * GRAPH_DISTANCE_SCANS;

        let looked_at = (degree * degree).min(degree / pass);
        let passing = pass * looked_at;
        if rows >= TWO_HOP_ROWS_MIN && pass * degree * degree >= TWO_HOP_NEIGHBOURS_MIN {
            let distance = dim as f64 + DISTANCE_COMPONENTS;
            let lists = looked_at / degree * LIST_COMPONENTS + looked_at * TEST_COMPONENTS;
            let scored = passing * FRESH_SHARE * distance * GRAPH_DISTANCE_SCANS;
            let steps = ef * TWO_HOP_EF * (lists + scored) / distance;
            costs.two_hop = descent(rows, degree) * GRAPH_DISTANCE_SCANS + steps;
        }
        costs
    }
}

/// Distances of a graph search without a filter.
fn searched(rows: u32, degree: f64, ef: f64) -> f64 {
    (descent(rows, degree) + ef * degree * FRESH_SHARE).min(f64::from(rows))
}

/// Distances on the way to the lowest layer: the neighbours of one row on each of about
/// log(rows) / log(degree) layers.
fn descent(rows: u32, degree: f64) -> f64 {
    let degree = degree.max(2.0);
    degree * f64::from(rows).ln().max(0.0) / degree.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 384;
    const DEGREE: usize = 32;

    fn check(rows: u32, pass: f64, ef: usize, expected: Plan) {
        let matching = (f64::from(rows) * pass).round() as u64;
        let chosen = plan(rows, rows, matching, DIM, DEGREE, ef, 10);
        assert_eq!(chosen, expected, "{rows} rows, {pass} pass, ef {ef}");
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
            // Twenty thousand rows are a small segment: no two-hop between the two.
            (20_000, 0.14, 16, Plan::GraphSweep),
            (1_000_000, 0.0005, 48, Plan::Scan),
            (1_000_000, 0.001, 48, Plan::Scan),
            (1_000_000, 0.05, 48, Plan::TwoHop),
            (1_000_000, 0.2, 48, Plan::TwoHop),
            (1_000_000, 0.9, 48, Plan::GraphSweep),
            (1_000_000, 1.0, 48, Plan::GraphSweep),
        ] {
            check(rows, pass, ef, expected);
        }
    }

    /// Where a scan and a sweep cost the same: the figures of the design.
    #[test]
    fn scan_and_sweep_meet_where_they_should() {
        for (rows, ef, from, to) in [(25_000, 16, 0.08, 0.13), (1_000_000, 48, 0.025, 0.035)] {
            let meet = (1..1_000).map(|of| f64::from(of) / 1_000.0).find(|pass| {
                let matching = (f64::from(rows) * pass) as u64;
                let costs = Costs::of(rows, rows, matching, DIM, DEGREE, ef, 10);
                costs.sweep < costs.scan
            });
            let meet = meet.expect("they meet");
            assert!((from..to).contains(&meet), "{rows} rows: {meet}");
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
            let chosen = plan(rows, live, matching, DIM, degree, ef, k);
            assert_eq!(chosen, Plan::Scan, "{rows} {live} {matching} {ef} {k}");
        }
    }

    #[test]
    fn two_hop_needs_a_large_segment_and_a_graph_that_holds_together() {
        let costs = |rows: u32, pass: f64| {
            let matching = (f64::from(rows) * pass) as u64;
            Costs::of(rows, rows, matching, DIM, DEGREE, 48, 10)
        };
        assert!(costs(TWO_HOP_ROWS_MIN - 1, 0.1).two_hop.is_infinite());
        assert!(costs(TWO_HOP_ROWS_MIN, 0.1).two_hop.is_finite());
        // 32 x 32 neighbours' neighbours, of which 16 must pass.
        assert!(costs(1_000_000, 0.015).two_hop.is_infinite());
        assert!(costs(1_000_000, 0.016).two_hop.is_finite());
    }

    #[test]
    fn deleted_rows_make_a_sweep_longer() {
        let live = Costs::of(25_000, 25_000, 5_000, DIM, DEGREE, 16, 10);
        let half = Costs::of(25_000, 12_500, 2_500, DIM, DEGREE, 16, 10);
        assert!((half.sweep - 2.0 * live.sweep).abs() < 1e-6);
    }

    #[test]
    fn no_argument_is_too_large() {
        for ef in [0, 1, usize::MAX] {
            for dim in [0, usize::MAX] {
                let _ = plan(u32::MAX, u32::MAX, u64::MAX, dim, usize::MAX, ef, ef);
            }
        }
    }
}
