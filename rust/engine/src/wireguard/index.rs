//! Receiver indices that look random on the wire and yet resolve by one array lookup.
//!
//! An index is a keyed permutation (four Feistel rounds over two 16-bit halves) of slot (24 bits) and the slot's generation (8 bits).
//! It hides how many sessions a device has; it is no secret that anything rests on.

use std::collections::VecDeque;

const SLOT_BITS: u32 = 24;

struct Slot {
    generation: u8,
    peer: Option<u32>,
}

/// Which peer's handshake or session has which index.
pub(crate) struct IndexTable {
    keys: [u32; 4],
    slots: Vec<Slot>,
    /// Freed slots, the longest free first, so that a generation comes back as late as can be.
    free: VecDeque<u32>,
}

fn round(half: u16, key: u32) -> u16 {
    let mut x = u32::from(half) ^ key;
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    (x ^ (x >> 16)) as u16
}

impl IndexTable {
    pub(crate) fn new(keys: [u32; 4]) -> Self {
        IndexTable { keys, slots: Vec::new(), free: VecDeque::new() }
    }

    fn permute(&self, value: u32) -> u32 {
        let (mut left, mut right) = ((value >> 16) as u16, value as u16);
        for key in self.keys {
            (left, right) = (right, left ^ round(right, key));
        }
        u32::from(left) << 16 | u32::from(right)
    }

    fn invert(&self, index: u32) -> u32 {
        let (mut left, mut right) = ((index >> 16) as u16, index as u16);
        for key in self.keys.iter().rev() {
            (left, right) = (right ^ round(left, *key), left);
        }
        u32::from(left) << 16 | u32::from(right)
    }

    /// A new index for a peer's slot; `None` when 2^24 are in use.
    pub(crate) fn allocate(&mut self, peer: u32) -> Option<u32> {
        let slot = match self.free.pop_front() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).ok().filter(|slot| *slot < 1 << SLOT_BITS)?;
                self.slots.push(Slot { generation: 0, peer: None });
                slot
            }
        };
        let entry = &mut self.slots[slot as usize];
        entry.peer = Some(peer);
        let value = u32::from(entry.generation) << SLOT_BITS | slot;
        Some(self.permute(value))
    }

    /// The peer's slot an index belongs to.
    pub(crate) fn resolve(&self, index: u32) -> Option<u32> {
        let value = self.invert(index);
        let entry = self.slots.get((value & ((1 << SLOT_BITS) - 1)) as usize)?;
        (u32::from(entry.generation) == value >> SLOT_BITS).then_some(entry.peer)?
    }

    /// Gives an index back; packets to it resolve no more.
    pub(crate) fn release(&mut self, index: u32) {
        if self.resolve(index).is_none() {
            return;
        }
        let slot = self.invert(index) & ((1 << SLOT_BITS) - 1);
        let entry = &mut self.slots[slot as usize];
        entry.peer = None;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push_back(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_resolve_until_released_and_do_not_count_up() {
        let mut table = IndexTable::new([1, 0xdead_beef, 3, 0x1234_5678]);
        let indices: Vec<u32> = (0..1000).map(|peer| table.allocate(peer).unwrap()).collect();
        for (peer, index) in indices.iter().enumerate() {
            assert_eq!(table.resolve(*index), Some(peer as u32));
        }
        assert!(indices.windows(2).filter(|w| w[0].abs_diff(w[1]) < 1 << 16).count() < 20);
        table.release(indices[7]);
        table.release(indices[7]);
        assert_eq!(table.resolve(indices[7]), None);
        let again = table.allocate(5).unwrap();
        assert_ne!(again, indices[7]);
        assert_eq!(table.resolve(again), Some(5));
        assert_eq!(table.resolve(indices[7]), None);
    }
}
