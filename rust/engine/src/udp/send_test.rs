//! Trains over loopback: what is put in comes out, in order, with every offload on and off.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::os::set_option;
use crate::udp::receive::Receiver;
use crate::udp::socket::Options;

fn pair(offload: bool) -> Pair {
    Pair::bind(0, &Options { mark: 0, gro: offload, gso: offload }).expect("two sockets")
}

fn drain(receiver: &mut Receiver, socket: &Socket) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while let Ok(messages) = receiver.receive(socket) {
        for index in 0..messages {
            let Some(message) = receiver.message(index) else { continue };
            let bytes = &receiver.arena()[message.start..message.start + message.len];
            datagrams.extend(bytes.chunks(message.segment).map(<[u8]>::to_vec));
        }
    }
    datagrams
}

fn train(outbox: &mut Outbox, route: &Route, sizes: &[usize]) -> Vec<Vec<u8>> {
    let datagrams: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(at, &size)| vec![at as u8; size]).collect();
    for datagram in &datagrams {
        assert!(outbox.push(route, datagram));
    }
    datagrams
}

#[test]
fn trains_arrive_whole_and_in_order_with_and_without_offloads() {
    let sizes: Vec<usize> = [vec![1312; 100], vec![700], vec![1312; 3], vec![40; 5], vec![1312]].concat();
    for (offload, plain, ipv6) in
        [(true, false, false), (true, false, true), (false, false, false), (true, true, false), (true, true, true)]
    {
        let (mut here, there) = (pair(offload), pair(offload));
        let Some(socket) = (if ipv6 { there.ipv6.as_ref() } else { there.ipv4.as_ref() }) else { continue };
        let to = if ipv6 {
            SocketAddr::from((Ipv6Addr::LOCALHOST, socket.port()))
        } else {
            SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port()))
        };
        let route = Route { to, owner: 7, plain };
        let (mut outbox, mut report) = (Outbox::default(), Report::default());
        let sent = train(&mut outbox, &route, &sizes);
        outbox.flush(&mut here, &mut report);
        assert_eq!((report.refused, report.congested, report.gso_given_up), (0, 0, 0));
        assert_eq!(report.datagrams, sizes.len() as u64);
        assert_eq!(drain(&mut Receiver::default(), socket), sent, "offload {offload}, plain {plain}, ipv6 {ipv6}");
    }
}

#[test]
fn a_reservation_is_granted_in_as_many_pieces_as_trains_need() {
    let route = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), owner: 0, plain: false };
    let mut outbox = Outbox::default();
    let (granted, place) = outbox.reserve(&route, 1312, 60, 100).expect("room");
    assert_eq!((granted, place.len()), (49, 49 * 1312));
    let (granted, place) = outbox.reserve(&route, 1312, 11, 100).expect("room");
    assert_eq!((granted, place.len()), (11, 10 * 1312 + 100));
    assert_eq!(outbox.bytes(), 59 * 1312 + 100);
    outbox.give_back(&route, 11, 10 * 1312 + 100);
    assert_eq!(outbox.bytes(), 49 * 1312);
}

#[test]
fn a_full_outbox_says_so_instead_of_mixing_addresses() {
    let mut outbox = Outbox::default();
    for port in 1..=BUILDERS as u16 {
        let route = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), owner: 0, plain: false };
        assert!(outbox.push(&route, &[0; 100]));
    }
    let route = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, 1000)), owner: 0, plain: false };
    assert!(!outbox.push(&route, &[0; 100]));
}

#[test]
fn what_the_kernel_refuses_is_told_with_owner_address_and_errno() {
    let mut here = pair(true);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let (mut outbox, mut report) = (Outbox::default(), Report::default());
    // Port 0 is no destination.
    let nowhere = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), owner: 5, plain: false };
    assert!(outbox.push(&nowhere, &[1; 10]));
    assert!(outbox.push(&Route { to, owner: 6, plain: false }, &[2; 10]));
    outbox.flush(&mut here, &mut report);
    assert_eq!(report.datagrams, 1);
    assert_eq!(report.faults, vec![SendFault { owner: 5, to: nowhere.to, errno: libc::EINVAL }]);
}

/// A socket whose trains the kernel refuses (EINVAL) while it takes single datagrams: UDP_SEGMENT needs checksums.
fn without_checksums(socket: &Socket) {
    set_option(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).expect("an option of every UDP socket");
}

#[test]
fn a_kernel_that_refuses_trains_gets_single_datagrams_from_then_on_and_none_is_lost() {
    let (mut here, there) = (pair(true), pair(true));
    let (Some(socket), Some(sender)) = (there.ipv4.as_ref(), here.ipv4.as_ref()) else { panic!("no IPv4") };
    assert!(sender.gso, "this kernel knows no UDP_SEGMENT");
    without_checksums(sender);
    let route = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port())), owner: 7, plain: false };
    let (mut outbox, mut report) = (Outbox::default(), Report::default());
    for (round, given_up) in [(0, 1), (1, 1)] {
        let sent = train(&mut outbox, &route, &[[1312; 60].as_slice(), &[700]].concat());
        outbox.flush(&mut here, &mut report);
        assert_eq!(drain(&mut Receiver::default(), socket), sent, "round {round}");
        assert_eq!((report.gso_given_up, report.refused, report.congested), (given_up, 0, 0));
        assert!(here.ipv4.as_ref().is_some_and(|socket| !socket.gso));
    }
    assert_eq!(report.datagrams, 2 * 61);
}

#[test]
fn an_address_that_takes_no_datagram_at_all_says_nothing_about_trains() {
    let mut here = pair(true);
    let nowhere = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), owner: 5, plain: false };
    let (mut outbox, mut report) = (Outbox::default(), Report::default());
    train(&mut outbox, &nowhere, &[100; 40]);
    outbox.flush(&mut here, &mut report);
    assert_eq!((report.refused, report.datagrams, report.gso_given_up), (40, 0, 0));
    assert!(here.ipv4.as_ref().is_some_and(|socket| socket.gso));
}

#[test]
fn a_reservation_given_back_whole_sends_nothing() {
    let (mut here, there) = (pair(true), pair(true));
    let Some(socket) = there.ipv4.as_ref() else { panic!("no IPv4") };
    let route = Route { to: SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port())), owner: 7, plain: false };
    let (mut outbox, mut report) = (Outbox::default(), Report::default());
    let (granted, place) = outbox.reserve(&route, 500, 3, 100).expect("room");
    let bytes = place.len();
    outbox.give_back(&route, granted, bytes);
    assert!(outbox.is_empty());
    let sent = train(&mut outbox, &route, &[10]);
    outbox.flush(&mut here, &mut report);
    assert_eq!((report.datagrams, report.refused), (1, 0));
    assert_eq!(drain(&mut Receiver::default(), socket), sent);
}
