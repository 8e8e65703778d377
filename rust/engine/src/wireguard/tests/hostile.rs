//! Arbitrary and mangled datagrams: nothing panics, nothing moves.

use proptest::prelude::*;

use super::*;
use crate::wireguard::cookie::write_macs;

#[test]
fn made_up_responses_put_nobody_under_load() {
    let now = seconds(1);
    let (mut a, mut b) = (End::new(1, 1, public_of(2), 3), End::new(2, 2, public_of(1), 3));
    let mut response = [0u8; 92];
    response[0] = 2;
    for index in 0..100u32 {
        response[8..12].copy_from_slice(&index.to_le_bytes());
        write_macs(&mut response, &public_of(2), None);
        b.receive(now, response.to_vec());
    }
    assert_eq!((b.device.counters().unknown_index, b.device.counters().cookies_sent), (100, 0));
    a.send(now, &packet(1));
    b.receive(now, a.turn(now).remove(0));
    assert_eq!(b.turn(now).remove(0).len(), 92, "an initiation is answered at once");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn arbitrary_datagrams_are_counted_and_dropped(
        kind in 0u8..6,
        len in prop_oneof![Just(64usize), Just(92), Just(148), 0usize..200],
        filling in prop::collection::vec(any::<u8>(), 200),
    ) {
        let mut end = End::new(1, 1, public_of(2), 0);
        let mut bytes = filling[..len].to_vec();
        if len >= 4 {
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        }
        prop_assert_eq!(end.device.handle_handshake(seconds(1), address(1), &bytes, &mut end.out), None);
        let mut jobs = [OpenJob::new(&mut bytes)];
        prop_assert_eq!(end.device.open(seconds(1), 7, &mut jobs, &mut end.out), None);
        prop_assert!(end.turn(seconds(1)).is_empty());
    }

    #[test]
    fn a_mangled_exchange_never_makes_a_session_or_gives_plaintext(at in 0usize..148, bit in 0u8..8, which in 0usize..3) {
        let now = seconds(1);
        let (mut a, mut b) = (End::new(1, 1, public_of(2), 1000), End::new(2, 2, public_of(1), 1000));
        a.send(now, &packet(1));
        let mut initiation = a.turn(now).remove(0);
        let mangle = |bytes: &mut Vec<u8>, tail: usize| {
            let at = at % (bytes.len() - tail);
            bytes[at] ^= 1 << bit;
        };
        if which == 0 {
            mangle(&mut initiation, 16);
        }
        b.receive(now, initiation);
        let Some(mut response) = b.turn(now).pop() else { return Ok(()) };
        prop_assert!(which != 0);
        if which == 1 {
            mangle(&mut response, 16);
        }
        a.receive(now, response);
        let Some(mut data) = a.turn(now).pop() else { return Ok(()) };
        prop_assert!(which == 2);
        mangle(&mut data, 0);
        prop_assert_eq!(b.receive(now, data), None);
        prop_assert_eq!(b.handshakes_done(), 0);
    }
}
