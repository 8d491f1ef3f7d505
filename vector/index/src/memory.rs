//! Memory that a search jumps about in. Where there is much of it, it is asked for in large pages:
//! with small ones most jumps also miss the cache of addresses.

use bytemuck::Pod;
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};

/// No system that this runs on has smaller pages: a map is aligned to it.
const PAGE_BYTES_MIN: usize = 4 << 10;
/// Below this, large pages would waste more than they spare.
const LARGE_BYTES_MIN: usize = 4 << 20;

/// Like a `Vec` of plain values.
pub struct Hot<T> {
    /// Room for values, of which the first `len` are.
    room: Room<T>,
    len: usize,
}

enum Room<T> {
    Small(Vec<T>),
    Large(MmapMut),
}

impl<T: Pod> Room<T> {
    /// At least `count` zeros.
    fn new(count: usize) -> Self {
        // Else the casts below would fail.
        const { assert!(size_of::<T>() > 0 && align_of::<T>() <= PAGE_BYTES_MIN) }
        let bytes = count.saturating_mul(size_of::<T>());
        if bytes >= LARGE_BYTES_MIN
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // A wish: small pages serve too.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Large(map);
        }
        Self::Small(vec![T::zeroed(); count])
    }

    fn all(&self) -> &[T] {
        match self {
            Self::Small(values) => values,
            // The cast does not fail: maps are aligned to pages.
            Self::Large(map) => {
                let whole = map.len() / size_of::<T>() * size_of::<T>();
                bytemuck::try_cast_slice(map.get(..whole).unwrap_or_default()).unwrap_or_default()
            }
        }
    }

    fn all_mut(&mut self) -> &mut [T] {
        match self {
            Self::Small(values) => values,
            Self::Large(map) => {
                let whole = map.len() / size_of::<T>() * size_of::<T>();
                let bytes = map.get_mut(..whole).unwrap_or_default();
                bytemuck::try_cast_slice_mut(bytes).unwrap_or_default()
            }
        }
    }
}

impl<T: Pod> Hot<T> {
    pub fn with_capacity(count: usize) -> Self {
        Self {
            room: Room::new(count),
            len: 0,
        }
    }

    pub fn filled(value: T, count: usize) -> Self {
        let mut this = Self::with_capacity(count);
        this.len = count;
        this.fill(value);
        this
    }

    pub fn push(&mut self, value: T) {
        self.extend_from_slice(&[value]);
    }

    pub fn extend_from_slice(&mut self, more: &[T]) {
        let len = self.len + more.len();
        if len > self.room.all().len() {
            let mut larger = Room::new(len.max(self.len * 2));
            let kept = larger.all_mut().iter_mut().zip(self.iter());
            kept.for_each(|(to, value)| *to = *value);
            self.room = larger;
        }
        let to = self.room.all_mut().get_mut(self.len..len);
        to.unwrap_or_default().copy_from_slice(more);
        self.len = len;
    }
}

impl<T: Pod> Deref for Hot<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        self.room.all().get(..self.len).unwrap_or_default()
    }
}

impl<T: Pod> DerefMut for Hot<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.room.all_mut().get_mut(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_ones_keep_what_they_are_given() {
        for (room, count) in [
            (0, 5),
            (10, 5),
            (LARGE_BYTES_MIN / 4, LARGE_BYTES_MIN / 4 + 3),
            (7, LARGE_BYTES_MIN),
        ] {
            let mut hot = Hot::<u32>::with_capacity(room);
            for value in 0..count as u32 {
                hot.push(value);
            }
            assert!(hot.iter().copied().eq(0..count as u32), "{room} {count}");
            hot.fill(3);
            assert_eq!((hot.len(), hot.last()), (count, Some(&3)));
        }
        assert_eq!(*Hot::filled(7u8, 3), [7, 7, 7]);
    }

    #[test]
    fn lines_are_aligned_and_whole_in_small_and_large_rooms() {
        use crate::kernels::{Line, STRIDE};
        let lines_of_large = LARGE_BYTES_MIN / STRIDE;
        for count in [0, 1, lines_of_large - 1, lines_of_large, lines_of_large + 1] {
            let mut hot = Hot::filled(Line([1; STRIDE]), count);
            hot.extend_from_slice(&[]);
            hot.extend_from_slice(&[Line([2; STRIDE]), Line([3; STRIDE])]);
            assert_eq!(hot.len(), count + 2);
            assert!(hot.as_ptr().addr().is_multiple_of(align_of::<Line>()));
            let codes = hot.iter().map(|line| line.0[STRIDE - 1]);
            let want = std::iter::repeat_n(1, count).chain([2, 3]);
            assert!(codes.eq(want), "{count}");
        }
    }
}
