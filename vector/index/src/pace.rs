//! How a long work goes along: it can be stopped between any two of its small steps, and rests in
//! proportion to what it took, so that others get their share of the processor meanwhile.
//!
//! Invariant: a step is short (a row is read, a node is put in), so that stopping takes no longer
//! than the longest of what lies between two.

use std::time::{Duration, Instant};

/// A thread rests when it has been busy for so long, in milliseconds: often enough that nobody waits
/// long for it, seldom enough that resting costs nothing.
const BUSY_MS: u64 = 5;

/// The work is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// What all threads of one work are told.
#[derive(Clone, Copy)]
pub struct Pace<'a> {
    is_stopped: &'a (dyn Fn() -> bool + Sync),
    /// Waits for so long, less where the work is stopped meanwhile.
    rest: &'a (dyn Fn(Duration) + Sync),
    percent: u32,
}

impl<'a> Pace<'a> {
    /// Each thread may take `percent` of its time, 1 to 100.
    pub fn new(
        is_stopped: &'a (dyn Fn() -> bool + Sync),
        rest: &'a (dyn Fn(Duration) + Sync),
        percent: u32,
    ) -> Self {
        let percent = percent.clamp(1, 100);
        Self {
            is_stopped,
            rest,
            percent,
        }
    }

    /// Never stopped, never resting.
    pub fn free() -> Pace<'static> {
        Pace::new(&|| false, &|_| {}, 100)
    }

    /// The steps of one thread.
    pub fn steps(self) -> Steps<'a> {
        Steps {
            pace: self,
            since: Instant::now(),
        }
    }
}

/// One thread's way through a work.
pub struct Steps<'a> {
    pace: Pace<'a>,
    /// When it began, or last rested.
    since: Instant,
}

impl Steps<'_> {
    /// What came before was no work: waiting for other threads.
    pub fn begin(&mut self) {
        if self.pace.percent < 100 {
            self.since = Instant::now();
        }
    }

    /// Between two steps.
    #[inline]
    pub fn step(&mut self) -> Result<(), Stopped> {
        if (self.pace.is_stopped)() {
            return Err(Stopped);
        }
        if self.pace.percent < 100 {
            let busy = self.since.elapsed();
            if busy >= Duration::from_millis(BUSY_MS) {
                let others = 100 - self.pace.percent;
                (self.pace.rest)(busy.saturating_mul(others) / self.pace.percent);
                self.since = Instant::now();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn work(time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn it_rests_in_proportion() {
        for percent in [20, 50, 100] {
            let rested = Mutex::new(Duration::ZERO);
            let rest = |time| *rested.lock().unwrap() += time;
            let mut steps = Pace::new(&|| false, &rest, percent).steps();
            for _ in 0..40 {
                work(Duration::from_millis(1));
                assert_eq!(steps.step(), Ok(()));
            }
            // The last few milliseconds are not rested for yet.
            let least = Duration::from_millis(40 - BUSY_MS) * (100 - percent) / percent;
            let rested = rested.into_inner().unwrap();
            assert!(
                rested >= least,
                "{percent} %: rested {rested:?}, not {least:?}"
            );
            assert_eq!(rested.is_zero(), percent == 100);
        }
    }

    #[test]
    fn waiting_is_no_work() {
        let rest = |time| panic!("rested for {time:?}");
        let mut steps = Pace::new(&|| false, &rest, 1).steps();
        work(Duration::from_millis(2 * BUSY_MS));
        steps.begin();
        assert_eq!(steps.step(), Ok(()));
    }
}
