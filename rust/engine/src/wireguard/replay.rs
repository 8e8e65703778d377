//! The replay window (RFC 6479): a ring of 64-bit blocks, so that moving forward clears whole blocks and shifts nothing.

const BLOCKS: u64 = 64;

/// Counters less than this behind the newest are told apart wherever in its block the newest lies.
#[cfg(test)]
pub(crate) const WINDOW: u64 = (BLOCKS - 2) * 64;

/// Which counters were seen.
pub(crate) struct Window {
    /// One more than the newest counter seen; 0 when none was.
    next: u64,
    seen: [u64; BLOCKS as usize],
}

impl Window {
    pub(crate) fn new() -> Self {
        Window { next: 0, seen: [0; BLOCKS as usize] }
    }

    /// Whether a counter may still be taken.
    pub(crate) fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        // The oldest block of the ring may hold newer counters' bits, so one block less than the ring is the window.
        if (self.next - 1) / 64 - counter / 64 >= BLOCKS - 1 {
            return false;
        }
        self.seen[(counter / 64 % BLOCKS) as usize] & (1 << (counter % 64)) == 0
    }

    /// Marks a counter whose packet was authentic; `false` when it had been seen.
    pub(crate) fn mark(&mut self, counter: u64) -> bool {
        if !self.is_fresh(counter) {
            return false;
        }
        let block = counter / 64;
        if counter >= self.next {
            let newest = if self.next == 0 { 0 } else { (self.next - 1) / 64 };
            for step in 0..(block - newest).min(BLOCKS) {
                self.seen[((block - step) % BLOCKS) as usize] = 0;
            }
            self.next = counter + 1;
        }
        self.seen[(block % BLOCKS) as usize] |= 1 << (counter % 64);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_is_taken_once_and_within_the_window() {
        let mut window = Window::new();
        const { assert!(WINDOW >= 2048) };
        assert!(window.mark(0) && !window.mark(0));
        assert!(window.mark(WINDOW + 200) && !window.is_fresh(1));
        assert!(window.mark(WINDOW + 9) && window.mark(300) && !window.mark(300));
        assert!(window.mark(1 << 50) && !window.mark(WINDOW + 8));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(steps in prop::collection::vec((0u64..12_000, any::<bool>()), 1..400)) {
            let (mut window, mut seen, mut newest) = (Window::new(), HashSet::new(), 0u64);
            for (value, near) in steps {
                let counter = if near { (newest + value % 80).saturating_sub(40) } else { value };
                let in_window = counter + WINDOW > newest;
                let fresh = window.mark(counter);
                if in_window {
                    prop_assert_eq!(fresh, !seen.contains(&counter));
                }
                prop_assert!(!(fresh && seen.contains(&counter)));
                if fresh {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }
}
