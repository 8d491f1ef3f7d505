//! The forest on AVX2: the bins of 32 rows are one register, their masks another, the eight leaves of
//! a tree a third. Each row's sum is over the trees in the plain code's order: the same bits.

use super::Forest;
use crate::wide::avx2::load;
use std::arch::x86_64::*;

/// Rows of one register of bytes; registers of one block.
const ROWS: usize = 32;
const REGISTERS: usize = 2;
const BLOCK: usize = ROWS * REGISTERS;

impl Forest {
    /// Adds the trees' sums to scores.
    #[target_feature(enable = "avx2")]
    pub(crate) fn add_avx2(&self, columns: &[f32], scores: &mut [f32]) {
        let rows = scores.len();
        let mut bins = vec![[_mm256_setzero_si256(); REGISTERS]; self.features];
        for (block, scores) in scores.chunks_mut(BLOCK).enumerate() {
            let from = block * BLOCK;
            let features = self.thresholds.iter().enumerate().zip(&mut bins);
            for ((feature, thresholds), bins) in features {
                if !thresholds.is_empty() {
                    let column = &columns[feature * rows..(feature + 1) * rows];
                    *bins = bins_of(thresholds, &column[from..from + scores.len()]);
                }
            }
            let sums = self.sums(&bins);
            for (scores, sums) in scores.chunks_mut(8).zip(sums) {
                for (score, sum) in scores.iter_mut().zip(store(sums)) {
                    *score += sum;
                }
            }
        }
    }

    /// The sums of one block over all trees, eight rows a register.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn sums(&self, bins: &[[__m256i; REGISTERS]]) -> [__m256; BLOCK / 8] {
        // Place of the lowest bit of a nibble; the lesser of both halves' is that of the byte.
        let low = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            15, 0, 1, 0, 2, 0, 1, 0, 3, 0, 1, 0, 2, 0, 1, 0,
        ));
        let high = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            15, 4, 5, 4, 6, 4, 5, 4, 7, 4, 5, 4, 6, 4, 5, 4,
        ));
        let nibble = _mm256_set1_epi8(15);
        let mut sums = [_mm256_setzero_ps(); BLOCK / 8];
        let mut from = 0;
        for (end, leaves) in self.ends.iter().zip(&self.leaves) {
            let end = *end as usize;
            let mut masks = [_mm256_set1_epi8(-1); REGISTERS];
            for node in &self.flat[from..end] {
                // Bins are less than THRESHOLDS_MAX: one more is a byte.
                let above = _mm256_set1_epi8(signed(node.bin + 1));
                let keep = _mm256_set1_epi8(node.keep.cast_signed());
                let bins = &bins[usize::from(node.feature)];
                for (mask, bins) in masks.iter_mut().zip(bins) {
                    let is_left = _mm256_cmpgt_epi8(above, *bins);
                    *mask = _mm256_and_si256(*mask, _mm256_or_si256(is_left, keep));
                }
            }
            from = end;
            let leaves = load(leaves);
            for (mask, sums) in masks.iter().zip(sums.as_chunks_mut::<4>().0) {
                let lower = _mm256_shuffle_epi8(low, _mm256_and_si256(*mask, nibble));
                let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(*mask), nibble);
                let exits = _mm256_min_epu8(lower, _mm256_shuffle_epi8(high, upper));
                let (first, last) = (
                    _mm256_castsi256_si128(exits),
                    _mm256_extracti128_si256::<1>(exits),
                );
                let eights = [
                    first,
                    _mm_srli_si128::<8>(first),
                    last,
                    _mm_srli_si128::<8>(last),
                ];
                for (sum, exits) in sums.iter_mut().zip(eights) {
                    // The permutation looks at the low three bits, as the plain code does.
                    let exits = _mm256_cvtepu8_epi32(exits);
                    *sum = _mm256_add_ps(*sum, _mm256_permutevar8x32_ps(leaves, exits));
                }
            }
        }
        sums
    }
}

/// Bytes can only be compared as signed ones: bins are moved by half the range on both sides.
const fn signed(bin: u8) -> i8 {
    (bin ^ 0x80).cast_signed()
}

/// How many thresholds lie below each value.
#[target_feature(enable = "avx2")]
#[inline]
fn bins_of(thresholds: &[f32], values: &[f32]) -> [__m256i; REGISTERS] {
    let mut block = [0.0f32; BLOCK];
    block[..values.len()].copy_from_slice(values);
    let mut bins = [_mm256_setzero_si256(); REGISTERS];
    for (bins, values) in bins.iter_mut().zip(block.as_chunks::<ROWS>().0) {
        let mut eights = [_mm256_setzero_ps(); ROWS / 8];
        for (eight, values) in eights.iter_mut().zip(values.as_chunks::<8>().0) {
            *eight = load(values);
        }
        let mut counts = [_mm256_setzero_si256(); ROWS / 8];
        for threshold in thresholds {
            let threshold = _mm256_set1_ps(*threshold);
            for (count, values) in counts.iter_mut().zip(eights) {
                let is_above = _mm256_cmp_ps::<_CMP_GT_OQ>(values, threshold);
                *count = _mm256_sub_epi32(*count, _mm256_castps_si256(is_above));
            }
        }
        let [a, b, c, d] = counts;
        let bytes = _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        // Packing goes by halves of registers: put the fours back into the rows' order.
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let bytes = _mm256_permutevar8x32_epi32(bytes, order);
        *bins = _mm256_xor_si256(bytes, _mm256_set1_epi8(i8::MIN));
    }
    bins
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(sums: __m256) -> [f32; 8] {
    let bits = _mm256_castps_si256(sums);
    [
        _mm256_extract_epi32::<0>(bits),
        _mm256_extract_epi32::<1>(bits),
        _mm256_extract_epi32::<2>(bits),
        _mm256_extract_epi32::<3>(bits),
        _mm256_extract_epi32::<4>(bits),
        _mm256_extract_epi32::<5>(bits),
        _mm256_extract_epi32::<6>(bits),
        _mm256_extract_epi32::<7>(bits),
    ]
    .map(|bits| f32::from_bits(bits.cast_unsigned()))
}

#[cfg(test)]
mod tests {
    use super::super::{Node, THRESHOLDS_MAX, Tree};
    use super::*;
    use crate::wide::avx2::Avx2;
    use proptest::prelude::*;

    /// Trees of three nodes over features with few or many thresholds.
    fn forest(nodes: &[(u8, u8)]) -> Forest {
        let trees = nodes
            .as_chunks::<3>()
            .0
            .iter()
            .zip(1u16..)
            .map(|(nodes, at)| {
                let node = |place: usize, left_leaves| Node {
                    feature: nodes[place].0 % 4,
                    threshold: f32::from(nodes[place].1) - 128.0,
                    left_leaves,
                };
                let leaf = f32::from(at) * 0.37;
                Tree {
                    nodes: vec![node(0, 0b0011), node(1, 0b0001), node(2, 0b0100)],
                    leaves: vec![leaf, -leaf * 0.7, leaf.sin(), 1.0 / leaf],
                }
            });
        Forest::new(trees.collect(), 4, 0.5).unwrap()
    }

    proptest! {
        #[test]
        fn both_ways_give_the_same_bits(
            nodes in prop::collection::vec((any::<u8>(), 0..THRESHOLDS_MAX as u8), 0..900),
            values in prop::collection::vec(prop_oneof![
                (-130i16..130).prop_map(f32::from),
                any::<f32>(),
            ], 0..800),
        ) {
            if let Some(registers) = Avx2::new() {
                let forest = forest(&nodes);
                let rows = values.len() / 4;
                let start: Vec<f32> = (0..rows).map(|row| (row as f32).cos()).collect();
                let (mut plain, mut fast) = (start.clone(), start);
                forest.add_plain(&values, &mut plain);
                registers.add_forest(&forest, &values, &mut fast);
                let bits = |scores: &[f32]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&plain), bits(&fast));
            }
        }
    }
}
