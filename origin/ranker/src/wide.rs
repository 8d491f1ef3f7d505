//! Runs a kernel compiled for the registers that the machine has. Sums have a fixed order and no
//! fused multiply-add, so that the result is the same bits either way.

use skerry_decide::score::Vector;

/// Work to be compiled once per instruction set. `run` and what it calls in its loops must be
/// `#[inline(always)]`: what is not inlined keeps the plain instructions.
pub(crate) trait Kernel {
    type Out;
    fn run(self, registers: impl Registers) -> Self::Out;
}

/// What the compiler does not make of plain code by itself.
pub(crate) trait Registers: Copy {
    /// [`skerry_decide::score::dot`], to the bit.
    fn dot(self, a: &Vector, b: &Vector) -> f32;

    /// Says that this will be read soon.
    fn fetch<T>(self, what: &T);
}

#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Registers for Plain {
    #[inline(always)]
    fn dot(self, a: &Vector, b: &Vector) -> f32 {
        skerry_decide::score::dot(a, b)
    }

    #[inline(always)]
    fn fetch<T>(self, _what: &T) {}
}

#[inline]
pub(crate) fn wide<K: Kernel>(kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    if let Some(registers) = avx2::Avx2::new() {
        return registers.run(kernel);
    }
    kernel.run(Plain)
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2 {
    #![expect(
        unsafe_code,
        reason = "the one way into code for registers found at run time"
    )]

    use super::{Kernel, Registers};
    use crate::forest::Forest;
    use skerry_decide::score::Vector;
    use std::arch::x86_64::*;

    /// A line of the cache.
    const LINE_BYTES: usize = 64;

    /// Proof that `avx2` and `popcnt` are there.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        #[inline]
        pub(crate) fn new() -> Option<Self> {
            let is_there = std::arch::is_x86_feature_detected!("avx2")
                && std::arch::is_x86_feature_detected!("popcnt");
            is_there.then_some(Self(()))
        }

        #[inline]
        pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Out {
            // SAFETY: `self` proves the features; the function has no other condition.
            unsafe { run(self, kernel) }
        }

        #[inline]
        pub(crate) fn add_forest(self, forest: &Forest, columns: &[f32], scores: &mut [f32]) {
            // SAFETY: `self` proves the feature; the function has no other condition.
            unsafe { forest.add_avx2(columns, scores) }
        }
    }

    impl Registers for Avx2 {
        #[inline(always)]
        fn dot(self, a: &Vector, b: &Vector) -> f32 {
            // SAFETY: `self` proves the feature; the function has no other condition.
            unsafe { dot(a, b) }
        }

        #[inline(always)]
        fn fetch<T>(self, what: &T) {
            let from = std::ptr::from_ref(what).cast::<i8>();
            for line in (0..size_of::<T>()).step_by(LINE_BYTES) {
                // SAFETY: the address lies in a live value, and a fetch has no other effect.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(from.add(line)) };
            }
        }
    }

    #[target_feature(enable = "avx2,popcnt")]
    fn run<K: Kernel>(registers: Avx2, kernel: K) -> K::Out {
        kernel.run(registers)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn dot(a: &Vector, b: &Vector) -> f32 {
        let mut lanes = _mm256_setzero_ps();
        for (a, b) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
            lanes = _mm256_add_ps(lanes, _mm256_mul_ps(load(a), load(b)));
        }
        let upper = _mm256_extractf128_ps::<1>(lanes);
        let fours = _mm_add_ps(_mm256_castps256_ps128(lanes), upper);
        let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
        _mm_cvtss_f32(_mm_add_ss(twos, _mm_movehdup_ps(twos)))
    }

    /// One load, as the compiler sees.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn load(from: &[f32; 8]) -> __m256 {
        let [a, b, c, d, e, f, g, h] = *from;
        _mm256_setr_ps(a, b, c, d, e, f, g, h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skerry_decide::score::dot;

    struct Dot<'a>(&'a Vector, &'a Vector);

    impl Kernel for Dot<'_> {
        type Out = f32;

        #[inline(always)]
        fn run(self, registers: impl Registers) -> f32 {
            registers.dot(self.0, self.1)
        }
    }

    proptest! {
        #[test]
        fn dots_are_the_same_bits(values in prop::collection::vec(-1e3f32..1e3, 128), zeros in 0usize..64) {
            let mut a = <Vector>::try_from(&values[..64]).unwrap();
            let b = <Vector>::try_from(&values[64..]).unwrap();
            a[..zeros].fill(-0.0);
            prop_assert_eq!(wide(Dot(&a, &b)).to_bits(), dot(&a, &b).to_bits());
        }
    }
}
