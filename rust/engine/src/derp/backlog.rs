//! Frames that wait for a relay's connection: bounded, the oldest dropped first, for the freshest are worth most.

use std::collections::VecDeque;

/// Frames of one kind.
pub(crate) struct Backlog {
    bytes: VecDeque<u8>,
    lens: VecDeque<u32>,
    limit_bytes: usize,
}

impl Backlog {
    pub fn new(limit_bytes: usize) -> Backlog {
        Backlog { bytes: VecDeque::new(), lens: VecDeque::new(), limit_bytes }
    }

    /// Give back memory that a burst needed.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.lens.shrink_to_fit();
    }

    pub fn is_empty(&self) -> bool {
        self.lens.is_empty()
    }

    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.lens.len()
    }

    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Add one frame given in parts; the number of older ones dropped to make room.
    pub fn push(&mut self, parts: &[&[u8]]) -> u64 {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let mut dropped = 0;
        while self.bytes.len() + len > self.limit_bytes && !self.lens.is_empty() {
            self.drop_oldest();
            dropped += 1;
        }
        for part in parts {
            self.bytes.extend(part.iter());
        }
        self.lens.push_back(len as u32);
        dropped
    }

    /// Drop the oldest frame; its length.
    pub fn drop_oldest(&mut self) -> usize {
        let len = self.lens.pop_front().unwrap_or_default() as usize;
        self.bytes.drain(..len);
        len
    }

    /// Take whole frames, about `wanted` bytes of them, and hand them to `sink` in one or two pieces.
    pub fn take<E>(&mut self, wanted: usize, mut sink: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut len = 0;
        while len < wanted {
            let Some(frame) = self.lens.pop_front() else { break };
            len += frame as usize;
        }
        let (first, second) = self.bytes.as_slices();
        let split = len.min(first.len());
        let result =
            sink(&first[..split]).and_then(|()| if len > split { sink(&second[..len - split]) } else { Ok(()) });
        self.bytes.drain(..len);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(backlog: &mut Backlog) -> Vec<u8> {
        let mut out = Vec::new();
        while !backlog.is_empty() {
            backlog
                .take(1, |bytes| {
                    out.extend_from_slice(bytes);
                    Ok::<(), ()>(())
                })
                .expect("the sink takes all");
        }
        out
    }

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut backlog = Backlog::new(100);
        for round in 0..50u8 {
            assert_eq!(backlog.push(&[&[round], &[round; 6]]), 0);
            assert_eq!(backlog.push(&[&[round + 100; 9]]), 0);
            assert_eq!(all(&mut backlog), [vec![round; 7], vec![round + 100; 9]].concat());
        }
    }

    #[test]
    fn the_oldest_frames_make_room_for_the_newest() {
        let mut backlog = Backlog::new(10);
        assert_eq!(backlog.push(&[&[1; 4]]), 0);
        assert_eq!(backlog.push(&[&[2; 4]]), 0);
        assert_eq!(backlog.push(&[&[3; 6]]), 1);
        assert_eq!(backlog.push(&[&[4; 9]]), 2);
        assert_eq!(all(&mut backlog), [4; 9]);
    }
}
