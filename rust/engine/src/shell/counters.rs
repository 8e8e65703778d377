//! Named counters. One thread owns them; Python gets copies.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Clone, Default, Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter by its name.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Inner packets (segments) read from the device.
    tun_rx_packets,
    /// Reads from the device: with super-packets, fewer than packets.
    tun_rx_reads,
    /// Inner packets handed to the device.
    tun_tx_packets,
    tun_tx_writes,
    udp_rx_datagrams,
    udp_rx_bytes,
    udp_rx_messages,
    udp_tx_datagrams,
    udp_tx_bytes,
    udp_tx_calls,
    relay_rx_packets,
    relay_tx_packets,
    disco_rx,
    stun_rx,
    handshakes_done,
    handshakes_failed,
    /// A peer's sessions were forgotten: nothing came for nine minutes.
    sessions_zeroed,
    /// A peer in the table has an impossible key.
    peers_refused,
    /// After Rebind no socket could be had.
    rebinds_failed,
    /// The kernel refused a train; the socket sends singly from then on.
    offload_udp_gso_given_up,
    /// The device would not take an offload that was asked for.
    offload_tun_tso_missing,
    offload_tun_uso_missing,
    offload_tun_queue_limit_missing,
    offload_udp_gro_missing,
    offload_udp_gso_missing,
    /// What came from the device and is no IP packet, or no super-packet that can be cut.
    drop_out_malformed,
    /// For an address that no peer has.
    drop_out_no_peer,
    /// For a peer without a path.
    drop_out_no_path,
    /// The peer has no session, and enough packets wait for one already.
    drop_out_no_session,
    /// The UDP socket's buffer was full.
    drop_out_congested,
    /// Cookies for senders who may be made up, when what was sent to such fills a quarter of the socket's buffer.
    drop_out_cookies,
    /// The kernel refused to send (see PathFault).
    drop_out_refused,
    /// The relay is not connected.
    drop_out_no_relay,
    /// The relay's connection is slower than what is sent through it.
    drop_out_relay_congested,
    /// Datagrams of no known kind.
    drop_in_unknown,
    /// Disco and STUN beyond what Python can take (see `callers`), or longer than any.
    drop_in_callers,
    /// WireGuard that did not authenticate, was replayed, or came for nobody.
    drop_in_unauthentic,
    /// Inside the tunnel, no IP packet.
    drop_in_malformed,
    /// From an address that its sender does not own.
    drop_in_wrong_source,
    drop_in_filter_scope,
    drop_in_filter_not_local,
    drop_in_filter_no_rule,
    /// The device did not take it.
    drop_in_tun_refused,
}
