//! What the packet filter costs with few rules and with many: `cargo bench -p buri-engine --bench filter`.
//!
//! Each packet begins another flow, so that every one is judged by the whole table; half of them are refused.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use buri_engine::filter::headers::{Headers, Part, TCP};
use buri_engine::filter::{Filter, IpRange, Rule, Table};

const PACKETS: u32 = 200_000;

fn host(number: u32) -> IpRange {
    IpRange::from_prefix(IpAddr::V4(Ipv4Addr::from(0x6440_0000 + number)), 32).expect("32 bits")
}

/// Pseudo-random numbers: a run is like the one before.
fn next(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as u32
}

/// Each rule lets fifteen of a thousand nodes reach one of our fifty addresses at one port.
fn rules(count: usize) -> Vec<Rule> {
    let mut state = 7;
    (0..count)
        .map(|_| Rule {
            sources: (0..15).map(|_| host(1000 + next(&mut state) % 1000)).collect(),
            destinations: vec![host(next(&mut state) % 50)],
            ports: vec![next(&mut state) as u16].into_iter().map(|port| (port, port)).collect(),
            protocols: vec![6, 17, 1, 58],
        })
        .collect()
}

fn packet(source: u32, destination: u32, port: u16) -> Headers {
    Headers {
        ipv6: false,
        part: Part::First,
        fragment: false,
        protocol: TCP,
        source: u128::from(0x6440_0000 + source),
        destination: u128::from(0x6440_0000 + destination),
        source_port: 40_000,
        destination_port: port,
        detail: 0x02,
        upper: 20,
        len: 40,
    }
}

fn main() {
    println!("{:>8} {:>14} {:>14}", "rules", "compile, ms", "a packet, ns");
    for count in [1, 100, 1_000, 10_000] {
        let table = rules(count);
        let local: Vec<IpRange> = (0..50).map(host).collect();
        let mut filter = Filter::default();
        let begun = Instant::now();
        filter.replace(Table::new(&local, &table), false);
        let compile = begun.elapsed();
        let mut state = 11;
        let packets: Vec<Headers> = (0..PACKETS)
            .map(|number| {
                let rule = &table[next(&mut state) as usize % table.len()];
                let source = (rule.sources[number as usize % 15].first - 0x6440_0000) as u32;
                let port = if number % 2 == 0 { rule.ports[0].0 } else { next(&mut state) as u16 };
                packet(source, (rule.destinations[0].first - 0x6440_0000) as u32, port)
            })
            .collect();
        let begun = Instant::now();
        let passed = packets.iter().filter(|one| filter.inbound(black_box(one)).is_ok()).count();
        let each = begun.elapsed().as_nanos() as f64 / f64::from(PACKETS);
        println!("{count:>8} {:>14.2} {each:>14.0}   ({passed} passed)", compile.as_secs_f64() * 1e3);
    }
}
