//! What waits for one client, fair between those who send to it: each sender has a queue of its own, they are emptied in
//! turn, and when there is no room the longest one loses its oldest frame. Who floods loses what it sends itself.

use std::collections::HashMap;

use super::backlog::Backlog;
use super::frames::Key;

/// Taken from one sender before it is the next one's turn.
const QUANTUM_BYTES: usize = 16 << 10;
/// Empty queues beyond this are given up at once; these keep their buffers until `shrink`, up to the limit each.
const KEPT: usize = 2;

/// What a push cost: frames dropped, and the bytes of those that were the sender's own.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Dropped {
    pub frames: u64,
    pub own_bytes: usize,
}

pub(super) struct Fair {
    queues: Vec<(Key, Backlog)>,
    places: HashMap<Key, usize, foldhash::fast::RandomState>,
    /// Whose turn it is.
    turn: usize,
    bytes: usize,
    frames: usize,
    limit_bytes: usize,
    /// So many frames may wait however long they are.
    least_frames: usize,
}

impl Fair {
    pub fn new(limit_bytes: usize, least_frames: usize) -> Fair {
        let (queues, places) = (Vec::new(), HashMap::default());
        Fair { queues, places, turn: 0, bytes: 0, frames: 0, limit_bytes, least_frames }
    }

    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Add one frame, given in parts.
    pub fn push(&mut self, sender: &Key, parts: &[&[u8]]) -> Dropped {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let at = match self.places.get(sender) {
            Some(at) => *at,
            None => {
                self.places.insert(*sender, self.queues.len());
                self.queues.push((*sender, Backlog::new(usize::MAX)));
                self.queues.len() - 1
            }
        };
        self.queues[at].1.push(parts);
        self.bytes += len;
        self.frames += 1;
        let mut dropped = Dropped::default();
        while self.bytes > self.limit_bytes && self.frames > self.least_frames {
            let lens = self.queues.iter().map(|(_, queue)| queue.len_bytes());
            let Some((longest, _)) = lens.enumerate().max_by_key(|(_, len)| *len) else { break };
            let lost = self.queues[longest].1.drop_oldest();
            self.bytes -= lost;
            self.frames -= 1;
            dropped.frames += 1;
            dropped.own_bytes += if longest == at { lost } else { 0 };
        }
        dropped
    }

    /// Whole frames into `out`, about `wanted` bytes of them.
    pub fn take(&mut self, out: &mut Vec<u8>, wanted: usize) {
        let start = out.len();
        while self.frames > 0 && out.len() - start < wanted {
            self.turn = if self.turn + 1 < self.queues.len() { self.turn + 1 } else { 0 };
            let queue = &mut self.queues[self.turn].1;
            let (frames, bytes) = (queue.len(), out.len());
            let taken: Result<(), std::convert::Infallible> =
                queue.take(QUANTUM_BYTES.min(wanted - (bytes - start)), |part| {
                    out.extend_from_slice(part);
                    Ok(())
                });
            match taken {
                Ok(()) => {}
                Err(never) => match never {},
            }
            self.frames -= frames - queue.len();
            self.bytes -= out.len() - bytes;
        }
        if self.queues.len() > KEPT {
            self.forget_empty();
        }
    }

    /// Own no more memory than what waits.
    pub fn shrink(&mut self) {
        self.forget_empty();
        for (_, queue) in &mut self.queues {
            queue.shrink();
        }
        self.queues.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    fn forget_empty(&mut self) {
        self.queues.retain(|(_, queue)| !queue.is_empty());
        self.places.clear();
        self.places.extend(self.queues.iter().enumerate().map(|(at, (key, _))| (*key, at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONEST: Key = [1; 32];
    const FLOODER: Key = [2; 32];

    #[test]
    fn a_senders_frames_stay_in_order_and_senders_take_turns() {
        let mut fair = Fair::new(1 << 20, 0);
        for number in 0..40u8 {
            fair.push(&FLOODER, &[&[200; 1000]]);
            fair.push(&HONEST, &[&[number; 500], &[number; 500]]);
        }
        let mut out = Vec::new();
        fair.take(&mut out, 36_000);
        let seen: Vec<u8> = out.chunks(1000).map(|frame| frame[0]).collect();
        let honest: Vec<u8> = seen.iter().copied().filter(|byte| *byte != 200).collect();
        assert_eq!(honest, (0..honest.len() as u8).collect::<Vec<u8>>());
        assert!(honest.len() >= 16 && seen.len() - honest.len() >= 16, "{seen:?}");
        while !fair.is_empty() {
            fair.take(&mut out, 1);
        }
        assert_eq!(out.len(), 80_000);
        assert_eq!((fair.bytes, fair.frames), (0, 0));
    }

    #[test]
    fn who_floods_loses_its_own_frames_and_the_other_none() {
        let mut fair = Fair::new(100_000, 4);
        let (mut lost, mut others) = (0, 0);
        for round in 0..1000 {
            let dropped = fair.push(&FLOODER, &[&[200; 1000]]);
            lost += dropped.own_bytes;
            others += dropped.frames as usize * 1000 - dropped.own_bytes;
            if round % 50 == 0 {
                let dropped = fair.push(&HONEST, &[&[1; 1000]]);
                assert_eq!(dropped.own_bytes, 0);
                lost += dropped.frames as usize * 1000;
            }
        }
        assert_eq!((lost, others), (920_000, 0));
        let mut out = Vec::new();
        fair.take(&mut out, usize::MAX);
        assert_eq!(out.iter().filter(|byte| **byte == 1).count(), 20 * 1000);
    }

    #[test]
    fn a_few_long_frames_may_exceed_the_limit() {
        let mut fair = Fair::new(10, 2);
        assert_eq!(fair.push(&HONEST, &[&[1; 9]]), Dropped::default());
        assert_eq!(fair.push(&HONEST, &[&[2; 9]]), Dropped::default());
        assert_eq!(fair.push(&HONEST, &[&[3; 9]]), Dropped { frames: 1, own_bytes: 9 });
    }

    #[test]
    fn senders_that_are_done_leave_nothing_behind() {
        let mut fair = Fair::new(1 << 20, 0);
        for number in 0..200u8 {
            fair.push(&[number; 32], &[b"once"]);
        }
        fair.take(&mut Vec::new(), usize::MAX);
        assert!(fair.is_empty() && fair.queues.is_empty() && fair.places.is_empty());
        fair.push(&HONEST, &[b"again"]);
        fair.take(&mut Vec::new(), usize::MAX);
        assert_eq!(fair.queues.len(), 1, "a few keep their buffers");
        fair.shrink();
        assert_eq!((fair.queues.capacity(), fair.places.len()), (0, 0));
    }
}
