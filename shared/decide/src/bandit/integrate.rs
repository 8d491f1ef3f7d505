//! The probability of each arm to be the best: `P_i = integral of f_i x product over j != i of F_j`.
//!
//! Method: in logit space, t = ln(x / (1 - x)), every Beta density is smooth (analytic, log-concave,
//! no singularity at 0 or 1), so composite Gauss-Legendre of 8 nodes converges fast. Where each arm
//! matters is bounded by the points at which its density has fallen by e^-[`DROP`] from its mode.
//! Below the greatest lower bound some arm has F = 0, above the greatest upper bound all have F = 1:
//! only the stretch between counts, and arms that end below it cannot win. Panels are as wide as the
//! narrowest density still alive there, and since every arm's range begins below the stretch, widths
//! grow geometrically: some 100 panels, whatever the arms. Distribution functions come from the
//! same nodes by the interpolant's exact integral, so that a node costs one `exp` an arm and no
//! incomplete beta function. Products that leave one arm out are prefix x suffix products.
//!
//! Error: below 1e-8 against closed forms up to shapes of 1e7; 200 arms take about 1 ms. For the
//! densities: normalised by Stirling's remainders at the mode, which does not cancel at shapes of 1e7.

/// A density is followed until it has fallen by e^-32 (1e-14).
const DROP: f64 = 32.0;
/// Width of a panel in units of the narrowest density's scale.
const PANEL_SCALES: f64 = 1.0;
/// Bound on the panels, whatever the input.
const PANELS_MAX: usize = 20_000;
const NODES: usize = 8;

/// Nodes and weights of Gauss-Legendre on [-1, 1] (Abramowitz and Stegun, 25.4).
const GAUSS: [(f64, f64); NODES] = [
    (-0.960_289_856_497_536_2, 0.101_228_536_290_376_26),
    (-0.796_666_477_413_626_7, 0.222_381_034_453_374_47),
    (-0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (-0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.183_434_642_495_649_8, 0.362_683_783_378_362),
    (0.525_532_409_916_329, 0.313_706_645_877_887_3),
    (0.796_666_477_413_626_7, 0.222_381_034_453_374_47),
    (0.960_289_856_497_536_2, 0.101_228_536_290_376_26),
];

/// The density of one arm in logit space.
struct Density {
    at: usize,
    alpha: f64,
    beta: f64,
    /// Logarithm of the density at the mode, less that of the rest there: the normaliser.
    log_norm: f64,
    lower: f64,
    upper: f64,
    scale: f64,
    /// Integral from the right end of the panel in hand to infinity.
    beyond: f64,
    win: f64,
}

/// `ln x` and `ln (1 - x)` at the logit `t`.
fn logs(t: f64) -> (f64, f64) {
    let small = (-t.abs()).exp().ln_1p();
    if t >= 0.0 {
        (-small, -t - small)
    } else {
        (t - small, -small)
    }
}

impl Density {
    fn new(at: usize, alpha: f64, beta: f64) -> Self {
        let mode = (alpha / beta).ln();
        let (ln_x, ln_y) = logs(mode);
        let peak = 0.5 * (alpha / (alpha + beta) * beta / std::f64::consts::TAU).ln()
            - stirling_rest(alpha)
            - stirling_rest(beta)
            + stirling_rest(alpha + beta);
        let log_norm = peak - (alpha * ln_x + beta * ln_y);
        let scale = (1.0 / alpha + 1.0 / beta).sqrt();
        let mut density = Self {
            at,
            alpha,
            beta,
            log_norm,
            lower: mode,
            upper: mode,
            scale,
            beyond: 0.0,
            win: 0.0,
        };
        density.lower = density.fall(mode, peak, -scale);
        density.upper = density.fall(mode, peak, scale);
        density
    }

    fn log_at(&self, (ln_x, ln_y): (f64, f64)) -> f64 {
        self.log_norm + self.alpha * ln_x + self.beta * ln_y
    }

    /// The first point found, going from the mode in steps that grow, where the density has fallen
    /// by [`DROP`], to within 3 % of the way.
    fn fall(&self, mode: f64, peak: f64, step: f64) -> f64 {
        let fallen = |distance: f64| self.log_at(logs(mode + distance)) < peak - DROP;
        let (mut inside, mut outside) = (0.0, step);
        while !fallen(outside) && outside.abs() < 1e6 {
            (inside, outside) = (outside, outside * 2.0);
        }
        for _ in 0..5 {
            let middle = 0.5 * (inside + outside);
            if fallen(middle) {
                outside = middle;
            } else {
                inside = middle;
            }
        }
        mode + outside
    }
}

/// `ln Gamma(z)` less Stirling's `(z - 1/2) ln z - z + ln(2 pi) / 2`.
fn stirling_rest(z: f64) -> f64 {
    if z >= 12.0 {
        let inverse = 1.0 / z;
        let square = inverse * inverse;
        return inverse
            * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    }
    // ln Gamma(z) = ln Gamma(z + 1) - ln z, carried over to the remainders.
    let ratio = (1.0 / z).ln_1p();
    stirling_rest(z + 1.0) + (z + 0.5) * ratio - 1.0
}

/// `matrix[k][m]`: what the value at node m adds to the integral from node k to the right end of
/// [-1, 1], for the polynomial through all nodes.
fn tail_matrix() -> [[f64; NODES]; NODES] {
    GAUSS.map(|(from, _)| {
        let at_from = legendre(from);
        GAUSS.map(|(node, weight)| {
            let at_node = legendre(node);
            let terms = at_node
                .iter()
                .zip(at_from.pairs())
                .enumerate()
                .map(|(n, (p, pair))| {
                    // The integral of P_n from s to 1 is (P_{n-1}(s) - P_{n+1}(s)) / (2n + 1).
                    let &[before, here] = pair else { return 0.0 };
                    let n = n as f64;
                    let after = ((2.0 * n + 1.0) * from * here - n * before) / (n + 1.0);
                    let integral = if n == 0.0 {
                        1.0 - from
                    } else {
                        (before - after) / (2.0 * n + 1.0)
                    };
                    (2.0 * n + 1.0) / 2.0 * p * integral
                });
            weight * terms.sum::<f64>()
        })
    })
}

/// The Legendre polynomials at `s`.
fn legendre(s: f64) -> LegendreRow {
    let mut row = [0.0; NODES + 1];
    let (mut before, mut here) = (0.0, 1.0);
    for (n, slot) in row.iter_mut().skip(1).enumerate() {
        *slot = here;
        let n = n as f64;
        (before, here) = (here, ((2.0 * n + 1.0) * s * here - n * before) / (n + 1.0));
    }
    LegendreRow(row)
}

/// 0 (where `P_{-1}` would be; it has no part), then `P_0 ... P_7`.
struct LegendreRow([f64; NODES + 1]);

impl LegendreRow {
    /// `P_0 ... P_7`.
    fn iter(&self) -> impl Iterator<Item = f64> + '_ {
        self.0.iter().skip(1).copied()
    }

    /// `(P_{n-1}, P_n)` for n = 0 ... 7.
    fn pairs(&self) -> std::slice::Windows<'_, f64> {
        self.0.windows(2)
    }
}

/// The probability of each Beta(alpha, beta) to give the greatest of one draw each. The shapes must
/// be positive and finite. Sums to 1.
#[must_use]
pub fn win_probabilities(shapes: &[(f64, f64)]) -> Vec<f64> {
    let mut densities: Vec<Density> = shapes
        .iter()
        .enumerate()
        .map(|(at, (alpha, beta))| Density::new(at, *alpha, *beta))
        .collect();
    let low = densities
        .iter()
        .map(|one| one.lower)
        .fold(f64::NEG_INFINITY, f64::max);
    let high = densities
        .iter()
        .map(|one| one.upper)
        .fold(f64::NEG_INFINITY, f64::max);
    densities.retain(|one| one.upper > low);

    let tails = tail_matrix();
    let mut values = vec![[0.0; NODES]; densities.len()];
    let mut below = vec![[0.0; NODES]; densities.len()];
    // From the right, because only there all distribution functions are known (1).
    for (left, right) in panels(&densities, low, high).into_iter().rev() {
        let (middle, half) = (0.5 * (left + right), 0.5 * (right - left));
        let nodes = GAUSS.map(|(s, _)| logs(middle + half * s));
        for ((one, values), below) in densities.iter_mut().zip(&mut values).zip(&mut below) {
            if left >= one.upper {
                (*values, *below) = ([0.0; NODES], [1.0; NODES]);
                continue;
            }
            for (value, node) in values.iter_mut().zip(nodes) {
                *value = one.log_at(node).exp();
            }
            for (below, row) in below.iter_mut().zip(&tails) {
                let tail: f64 = row.iter().zip(values.iter()).map(|(a, f)| a * f).sum();
                *below = (1.0 - one.beyond - half * tail).clamp(0.0, 1.0);
            }
            let whole: f64 = values.iter().zip(GAUSS).map(|(f, (_, w))| w * f).sum();
            one.beyond += half * whole;
        }
        // Products of all others: those before, times those after.
        let mut before = [half; NODES];
        for (values, below) in values.iter_mut().zip(&below) {
            for (((value, below), before), (_, weight)) in
                values.iter_mut().zip(below).zip(&mut before).zip(GAUSS)
            {
                *value *= *before * weight;
                *before *= below;
            }
        }
        let mut after = [1.0; NODES];
        for ((one, values), below) in densities.iter_mut().zip(&values).zip(&below).rev() {
            for ((value, below), after) in values.iter().zip(below).zip(&mut after) {
                one.win += value * *after;
                *after *= below;
            }
        }
    }

    let sum: f64 = densities.iter().map(|one| one.win).sum();
    let mut wins = vec![0.0; shapes.len()];
    for one in &densities {
        if let Some(win) = wins.get_mut(one.at) {
            *win = one.win / sum;
        }
    }
    wins
}

fn panels(densities: &[Density], low: f64, high: f64) -> Vec<(f64, f64)> {
    // By where they end: the narrowest of those that are still alive is a suffix minimum.
    let mut ends: Vec<(f64, f64)> = densities.iter().map(|one| (one.upper, one.scale)).collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut narrowest = f64::INFINITY;
    for (_, scale) in ends.iter_mut().rev() {
        narrowest = narrowest.min(*scale);
        *scale = narrowest;
    }
    let mut ends = ends.into_iter().peekable();
    let mut panels = Vec::new();
    let (mut left, least) = (low, (high - low) / PANELS_MAX as f64);
    while left < high {
        while ends.next_if(|(end, _)| *end <= left).is_some() {}
        let Some((_, scale)) = ends.peek() else { break };
        // `least` bounds the count; a step too small to move is the end of what f64 can tell apart.
        let right = (left + (PANEL_SCALES * scale).max(least)).min(high);
        if right <= left {
            break;
        }
        panels.push((left, right));
        left = right;
    }
    panels
}
