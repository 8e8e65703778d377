"""Every input from a peer, a file or a person, and what it gets when it is wrong: one table.

`covers` names the entries of the code that take the input, as tests/meta/test_fault_table.py finds them there (`*` stands
for anything): functions that parse (`wire.disco.open_datagram`), Rust's (`rust:derp/frames.rs::parse_header`), LocalAPI's
and the control server's paths, admin verbs, values of the command line, variables, files. That test fails for an entry
without a row, for a row without an entry, and for a proof that is not there.
"""

from __future__ import annotations

from faultrow import Fault, N, U
from signinfaults import SIGN_IN

PACKETS = [
    Fault(
        "a UDP datagram of unknown kind, or a WireGuard message that is none",
        "anybody",
        "dropped and counted; no answer, no state, no wake-up of Python",
        (
            "rust/engine/src/wireguard/tests/hostile.rs::made_up_responses_put_nobody_under_load",
            "rust/engine/src/wireguard/tests/pair.rs::a_replayed_initiation_and_a_stranger_get_no_answer",
            "rust/engine/src/wireguard/tests/pair.rs::a_tampered_packet_is_refused_and_does_not_burn_its_counter",
        ),
        ("rust:udp/classify.rs::classify", "rust:wireguard/mod.rs::classify"),
    ),
    Fault(
        "an inner packet that is cut short, or from an address that its sender does not own",
        "a peer",
        "dropped and counted",
        (
            "rust/engine/src/filter/filter_test.rs::what_is_cut_short_is_no_packet",
            N + "test_engine_pair.py::test_what_its_sender_does_not_own_is_dropped",
        ),
        ("rust:filter/headers.rs::parse", "engine.fakefilter.read_header"),
    ),
    Fault(
        "a super-packet of the TUN device that contradicts itself",
        "the kernel, a local program",
        "dropped and counted",
        ("rust/engine/src/tun/virtio.rs::unknown_kinds_and_short_headers_are_refused",),
        ("rust:tun/virtio.rs::parse",),
    ),
    Fault(
        "a disco datagram",
        "anybody; inside the box a peer",
        "WireError; dropped and counted by kind, floods answered at a bounded rate",
        (
            U + "wire/test_disco.py::test_any_bytes_parse_or_raise_a_wire_error",
            U + "machine/paths/test_manager.py::test_strangers_garbage_and_late_answers_change_nothing",
            U + "machine/paths/test_manager.py::test_a_peer_may_put_anything_at_all_into_its_boxes",
            U + "machine/paths/test_manager.py::test_a_flood_of_pings_is_answered_at_a_bounded_rate",
        ),
        ("wire.disco.parse_sender", "wire.disco.open_datagram", "wire.disco.parse_message"),
    ),
    Fault(
        "a DNS question, or an upstream resolver's answer",
        "a program of this machine; the resolver, or who claims to be it",
        "a question: FORMERR or SERVFAIL; an answer: not taken, another resolver's or TCP's is waited for",
        (
            U + "wire/test_dnsmessage.py::test_no_bytes_break_the_readers",
            U + "wire/test_dnsmessage.py::test_what_is_no_query_is_refused",
            U + "dns/test_server.py::test_what_is_no_question_gets_a_format_error_or_nothing",
            U + "dns/test_server.py::test_an_answer_to_another_question_is_not_taken",
        ),
        ("wire.dnsmessage.parse_query", "wire.dnsmessage.parse_answer"),
    ),
    Fault(
        "more events than Python takes",
        "anybody",
        "the oldest datagram goes and is counted; news of relays and handshakes never does",
        (
            U + "engine/test_fake.py::test_a_full_event_queue_drops_the_oldest_datagram_and_keeps_the_rest",
            U + "engine/test_native.py::test_a_full_queue_drops_the_oldest_datagram_and_counts_it",
        ),
        (),
    ),
    Fault(
        "a STUN question or answer",
        "anybody",
        "WireError; no answer, or an answer that is not heard",
        (
            U + "wire/test_stun.py::test_any_bytes_parse_or_raise_a_wire_error",
            U + "machine/test_netcheck.py::test_answers_made_up_late_or_from_elsewhere_are_not_heard",
        ),
        ("wire.stun.parse_request", "wire.stun.parse_response"),
    ),
]

RELAYS = [
    Fault(
        "a DERP frame, or what stands in its place",
        "a client of our relay; a relay",
        "the connection ends with a phrase (shown as the relay's trouble), others are not touched; unknown kinds are skipped",
        (
            "rust/engine/src/derp/hub_test.rs::a_client_that_says_nothing_or_nonsense_is_closed",
            "rust/engine/src/derp/hub_test.rs::an_unknown_frame_is_skipped_however_long",
            "rust/engine/src/derp/client.rs::what_is_no_relay_is_refused_with_a_phrase",
            U + "engine/test_frontdoor.py::test_a_client_that_says_nonsense_or_nothing_leaves_the_others_alone",
        ),
        ("rust:derp/frames.rs::parse_header",),
    ),
    Fault(
        "a request's head at the public port",
        "anybody",
        "its HTTP status and a closed connection; 10 s and 64 KiB at most",
        (U + "engine/test_frontdoor.py::test_what_cannot_be_answered_is_refused_by_its_status",),
        ("rust:front/head.rs::parse",),
    ),
    Fault(
        "a relay that accepts and never answers, or stops amid its work",
        "a relay",
        "“Relay X: …” in health, another home within seconds; direct traffic does not feel it",
        (N + "test_bad_control.py::test_a_relay_that_stalls_is_named_and_left_for_another",),
        (),
    ),
    Fault(
        "a request to the relay's metrics",
        "whoever watches",
        "405, 404 or 503 with a sentence; 5 s and 8 KiB at most",
        (U + "relay/test_metrics.py::test_it_serves_one_request_a_connection_and_outlives_nonsense",),
        (),
    ),
]

CONTROL = [
    Fault(
        "an HTTP request outside Noise",
        "anybody",
        "400, 404, 405, 413, 421 with a sentence; a slow head ends after 10 s",
        (
            U + "control/noisefront/test_http1.py::test_a_head_that_is_none_is_refused_with_the_reason",
            U + "control/noisefront/test_http1.py::test_an_odd_target_is_answered_and_nothing_breaks",
            U + "control/noisefront/test_http1.py::test_the_pages_say_how_to_join_and_refuse_the_rest",
        ),
        ("http:/key", "http:/health", "http:/", "http:/derp"),
    ),
    Fault(
        "a PROXY header on the front door's socket",
        "whoever may connect there (this user)",
        "WireError; cut off without an answer",
        (
            U + "wire/test_proxyprotocol.py::test_garbage_is_read_or_refused_and_nothing_else",
            U
            + "control/noisefront/test_http1.py::test_what_does_not_come_from_the_front_door_is_cut_off_without_an_answer",
        ),
        ("wire.proxyprotocol.parse_proxy_header",),
    ),
    Fault(
        "a Noise initiation or record",
        "anybody",
        "WireError: 400 with the reason before the 101, the end of the session after it",
        (
            U + "machine/test_noiseserver.py::test_garbage_for_an_initiation_is_a_peers_fault",
            U + "control/noisefront/test_tunnel.py::test_nonsense_instead_of_a_record_ends_the_session",
            U + "control/noisefront/test_http1.py::test_a_session_is_refused_with_its_likely_cause",
        ),
        ("wire.noise.parse_initiation", "http:/ts2021"),
    ),
    Fault(
        "JSON of a registration or map request",
        "a machine with a Noise session",
        "400 with the place; numbers that would break other clients and Hostinfo over 64 KiB likewise",
        (
            U + "control/noisefront/test_tunnel.py::test_what_does_not_parse_is_answered_with_the_place",
            U
            + "control/noisefront/test_tunnel.py::test_json_without_an_end_of_nesting_is_answered_like_any_other_nonsense",
            U + "control/domain/test_reports.py::test_an_absurd_report_is_refused_and_harms_nothing",
            U + "control/mapper/test_streams.py::test_a_strangers_map_request_is_refused",
        ),
        ("control.noisefront.machineroutes._decode", "http:/machine/register", "http:/machine/map"),
    ),
    Fault(
        "another call inside Noise",
        "a machine with a Noise session",
        "501 for what Tailscale knows and we do not, else 404",
        (U + "control/noisefront/test_tunnel.py::test_calls_that_are_not_known_are_told_apart",),
        ("http:/machine/*",),
    ),
    Fault(
        "a registration while the disk is full or the database held",
        "a machine",
        "the reason in RegisterResponse.Error (reports: 503), nothing acknowledged, no address twice",
        (
            U + "control/test_acknowledged.py::test_a_full_disk_acknowledges_nothing_and_gives_no_address_twice",
            U + "control/test_acknowledged.py::test_a_locked_database_acknowledges_nothing",
            U + "control/noisefront/test_tunnel.py::test_errors_are_answered_by_their_kind",
        ),
        (),
    ),
    Fault(
        "an auth key that is spent, expired, revoked or none; a tag it does not grant",
        "a machine, by its person",
        "RegisterResponse.Error with the word for it; `buri up` ends with that sentence and 1",
        (
            U + "control/test_registrar.py::test_expired_revoked_and_unknown_keys_are_told_apart",
            U + "control/domain/test_authkeys.py::test_any_other_text_is_no_key",
            N + "test_faults.py::test_auth_keys_that_do_not_serve_change_nothing_and_a_good_one_still_does",
        ),
        (),
    ),
    Fault(
        "the code of a login page",
        "anybody with a browser",
        "404 with a sentence; the page escapes what the machine says of itself",
        (
            U + "web/test_signinpages.py::test_what_a_machine_says_of_itself_stays_text",
            U + "control/test_registrar.py::test_a_stolen_login_link_helps_nobody",
        ),
        ("http:/register/{code}",),
    ),
]

NODE = [
    Fault(
        "what answers at the control server's URL",
        "whoever answers there",
        "“… is not a control server …” and 1, or “cannot be reached: …”; later the node tries again for ever",
        (
            U + "machine/test_controlclient.py::test_something_else_behind_the_url_ends_a_login_with_a_sentence",
            U + "machine/test_controlclient.py::test_junk_from_a_server_ends_a_session_and_nothing_else",
            U + "netio/test_streams.py::test_what_is_not_a_sound_answer_is_the_servers_fault",
            N + "test_faults.py::test_a_server_that_is_none_is_named_and_a_right_one_still_serves",
        ),
        (
            "machine.controlclient.ControlClient.handle_key",
            "machine.controlclient.ControlClient._registered_answer",
            "machine.controlsession.ControlSession._take_plain",
        ),
    ),
    Fault(
        "a control server that stalls",
        "the control server",
        "“… does not answer”; traffic goes on, restarts too",
        (N + "test_bad_control.py::test_a_control_server_that_stalls_costs_no_traffic_and_is_named",),
        (),
    ),
    Fault(
        "a frame of the map stream: garbage, a bomb, cut short, JSON of another shape",
        "the control server",
        "WireError in one sentence and a new stream; traffic goes on",
        (
            U + "machine/test_mapframes.py::test_a_message_that_does_not_read_is_the_servers_fault",
            U + "machine/test_controlclient.py::test_junk_in_the_map_stream_ends_the_session_with_a_sentence",
            N + "test_bad_control.py::test_garbage_in_the_map_stream_is_one_sentence_and_a_new_stream",
            N + "test_bad_control.py::test_json_that_is_none_is_one_sentence_and_a_new_stream",
        ),
        ("machine.mapframes.decode",),
    ),
    Fault(
        "a netmap that makes no sense: keys, addresses, routes, relays, times",
        "the control server",
        "what cannot be is left out, what two claim is the first one's; the rest is used",
        (
            N + "test_bad_control.py::test_a_netmap_of_nonsense_harms_nobody",
            U + "node/test_reconciler.py::test_an_address_or_route_that_two_peers_claim_stays_with_the_first",
            U + "node/test_reconciler.py::test_a_peer_that_does_not_read_is_left_out_and_the_others_stay",
            U + "machine/test_relayaddresses.py::test_of_a_map_only_what_can_be_is_used",
            U + "wire/test_times.py::test_what_is_no_time_is_a_value_error",
        ),
        (
            "wire.tailcfg.base.parse_time",
            "core.keys._Key.parse",
            "core.addresses.parse_prefix",
            "core.addresses.parse_address",
        ),
    ),
    Fault(
        "a rule of the packet filter that does not read",
        "the control server",
        "left out, so that never more is let in",
        (
            U + "node/test_filterrules.py::test_what_cannot_be_understood_or_grants_no_packets_lets_nothing_in",
            U + "node/test_filterrules.py::test_other_texts_are_refused",
        ),
        ("node.filterrules.parse_ip_set",),
    ),
    Fault(
        "a clock years away from the server's",
        "the machine",
        "“This machine's clock says …” in health; ends of keys go by the server's clock, peers are met anew",
        (
            N + "test_clock_faults.py::test_a_node_whose_clock_is_years_off_is_told_so_and_stays_in_the_tailnet",
            N + "test_clock_faults.py::test_a_server_whose_clock_is_years_off_says_so_and_all_is_well_once_it_is_set",
            U + "node/test_statestore.py::test_a_clock_that_went_back_makes_a_node_begin_anew_to_its_peers",
        ),
        (),
    ),
    Fault(
        "a name or message with control characters",
        "a node, a control server",
        "each is replaced before a terminal sees it",
        (U + "core/test_plaintext.py::test_no_table_prints_them",),
        (),
    ),
]

LOCAL = [
    Fault(
        "a request to LocalAPI",
        "a program of this machine",
        "400, 403, 404, 405, 413 as Tailscale's; what the node cannot do comes with its exit code",
        (
            U + "node/localapi/test_server.py::test_a_wrong_request_gets_the_status_for_it",
            U + "node/localapi/test_server.py::test_others_may_look_but_not_touch",
            U + "node/test_backend.py::test_preferences_that_would_silently_do_nothing_are_refused",
            U + "node/test_backend.py::test_a_watcher_that_never_reads_is_cut_off",
        ),
        ("localapi:*", "node.localapi.endpoints._decode"),
    ),
    Fault(
        "what answers at burid's socket",
        "whatever listens there",
        "“… does not speak as burid does” and an exit code of its own; no burid: what to type",
        (
            U + "cli/test_verbs.py::test_something_else_on_the_socket_is_told_apart",
            U + "cli/test_verbs.py::test_without_a_daemon_one_sentence_says_what_to_type",
            U + "cli/test_verbs.py::test_the_daemons_refusal_ends_with_its_exit_code",
        ),
        (
            "cli.localclient.LocalClient.derp_map",
            "cli.localclient._decode",
            "cli.localclient._refused",
            "cli.status.command",
        ),
    ),
    Fault(
        "a line on the admin socket; its answer",
        "root or the server's user",
        "Reply.error with a sentence, another user's: NotPermittedError, 4",
        (
            U + "cli/test_admin.py::test_a_request_that_is_none_gets_an_answer",
            U + "cli/test_admin.py::test_other_users_are_refused",
            U + "control/test_absurd_ends.py::test_a_key_s_end_past_the_year_9999_is_refused",
            U + "control/domain/test_names.py::test_an_administrators_unfit_name_is_refused",
        ),
        (
            "admin:*",
            "control.api.adminsocket._answer",
            "control.domain.accounts.grant_role",
            "cli.admin_client.Client.ask",
        ),
    ),
]

PERSONS = [
    Fault(
        "a flag of `buri server`, or its variable",
        "a person",
        "ConfigError, 2: the flag, what it takes, what was given; nothing is written",
        (
            U + "control/test_config.py::test_what_is_no_address_is_refused",
            U + "control/test_config.py::test_what_is_no_url_of_a_server_is_refused",
            U + "control/test_config.py::test_variables_are_checked_as_flags_are",
            N + "test_faults.py::test_a_server_that_cannot_be_is_refused_before_it_writes_anything",
        ),
        (
            "cli:server *",
            "variable:BURI_SERVER_*",
            "control.config.resolve",
            "core.flagvalues.given",
            "roles.server.main",
            "core.addresses.AddrPort.parse",
        ),
    ),
    Fault(
        "a flag of `buri relay`, or its variable",
        "a person",
        "ConfigError, 2: the flag, what it takes, what was given",
        (
            U + "relay/test_config.py::test_what_cannot_be_is_named",
            U + "relay/test_config.py::test_a_variable_that_nobody_knows_is_a_slip_to_name",
            U + "roles/test_relay.py::test_a_wrong_flag_is_one_sentence_and_exit_code_2",
        ),
        ("cli:relay *", "variable:BURI_RELAY_*", "relay.config.resolve", "roles.relay.main"),
    ),
    Fault(
        "a flag of `burid`, or PORT",
        "a person, the service file",
        "ConfigError, 2",
        (U + "roles/test_daemon_options.py::test_what_cannot_be_used_is_refused_with_a_sentence",),
        ("cli:daemon *", "burid:*", "variable:PORT", "roles.daemon.parse"),
    ),
    Fault(
        "a value of another verb's flag",
        "a person",
        "a usage error, 2, or the daemon's sentence",
        (
            U + "cli/test_flags.py::test_a_flag_that_cannot_be_meant_ends_with_usage",
            U + "cli/test_upplan.py::test_a_login_server_is_a_url",
            U + "machine/test_controlclient.py::test_other_urls_are_the_users_fault",
            U + "cli/test_verbs.py::test_a_slip_is_told_with_the_verb_that_was_meant",
        ),
        (
            "cli:up *",
            "cli:login *",
            "cli:set *",
            "cli:get *",
            "cli:wait *",
            "cli:ping *",
            "cli:ip *",
            "cli:netcheck *",
            "cli:whois *",
            "cli:debug *",
            "cli:completion *",
            "cli:status *",
            "cli:version *",
            "machine.controlclient.Server.parse",
            "cli.main.LazyGroup.resolve_command",
            "variable:BURI_SOCKET",
        ),
    ),
    Fault(
        "a value of `buri admin`",
        "an administrator",
        "a usage error or ConfigError, 2; StateError, 1, for what is not there",
        (
            U + "cli/test_admin.py::test_what_is_no_duration",
            U + "cli/test_admin.py::test_nodes",
            U + "cli/test_admin.py::test_users",
            U + "cli/test_admin.py::test_preauthkeys",
        ),
        ("cli:admin *",),
    ),
    Fault(
        "variables that others set",
        "sudo, systemd, the shell",
        "an unknown user gives a name of our own; a notify socket that is gone is logged",
        (U + "cli/test_verbs.py::test_the_first_sudo_buri_up_makes_its_caller_the_operator",),
        ("variable:SUDO_USER", "variable:USER", "variable:NOTIFY_SOCKET", "variable:BURI_ENGINE_ALLOW_STALE"),
    ),
]

FILES = [
    Fault(
        "burid.state: damaged, newer, on a disk that is full or read-only",
        "the disk, a person",
        "ConfigError, 2, and the file left alone; a write that fails did not happen, SystemFault, 3",
        (
            N + "test_disk_faults.py::test_of_a_node_s_files_the_state_is_guarded_and_the_netmap_may_be_anything",
            N + "test_disk_faults.py::test_a_node_whose_disk_goes_read_only_or_full_carries_on_and_starts_again",
            U + "node/test_statestore.py::test_what_the_disk_does_not_take_did_not_happen",
            U + "node/test_statestore.py::test_a_state_file_that_cannot_be_used_is_left_alone",
        ),
        ("file:burid.state", "node.statestore.StateStore.__init__", "node.statestore.StateStore._load",
         "node.agent.Agent.__init__"),
    ),
    Fault(
        "netmap.json",
        "the disk, a person",
        "not used: the server gives another",
        (U + "node/test_statestore.py::test_a_netmap_that_does_not_read_is_none",),
        ("file:netmap.json", "node.statestore.StateStore.load_netmap"),
    ),
    Fault(
        "server.db: damaged, newer, foreign, held, on a full disk",
        "the disk, a person",
        "ConfigError, 2, “Restore a backup”; held: InUseError, 5; nothing is touched",
        (
            N + "test_disk_faults.py::test_a_server_names_the_file_that_is_damaged_newer_or_held_and_touches_nothing",
            U + "control/store/test_database.py::test_a_database_whose_rows_do_not_read_is_refused_in_one_sentence",
            U + "control/store/test_database.py::test_a_newer_database_is_refused_and_untouched",
            U + "control/store/test_database.py::test_a_full_disk_is_one_sentence_and_no_loss",
        ),
        ("file:server.db", "control.store.rows.*"),
    ),
    Fault(
        "noise.key, derp.key",
        "the disk, a person",
        "ConfigError, 2, never replaced",
        (
            U + "netio/test_secretfile.py::test_a_damaged_key_file_is_named_and_left_alone",
            U + "roles/test_server.py::test_a_damaged_noise_key_is_said_and_never_replaced",
        ),
        ("file:noise.key", "file:derp.key"),
    ),
    Fault(
        "derp.crt, derp-map.json, first-auth-key: files of ours that are made anew",
        "the disk, a person",
        "another takes its place, whole",
        (
            U + "relay/test_identity.py::test_a_certificate_file_that_does_not_parse_is_made_anew",
            U + "netio/test_secretfile.py::test_what_everybody_may_read_is_replaced_whole_under_a_reader",
            U + "control/test_registrar.py::test_the_first_key_of_a_server_is_kept_while_it_lasts_and_then_replaced",
        ),
        ("file:derp.crt", "file:derp-map.json", "file:first-auth-key"),
    ),
    Fault(
        "--tls-cert and --tls-key",
        "a person",
        "ConfigError, 2, with the file; at SIGHUP the old ones stay",
        (
            U + "engine/test_frontdoor.py::test_sockets_and_certificates_that_cannot_be_had_are_named",
            N + "test_faults.py::test_a_server_that_cannot_be_is_refused_before_it_writes_anything",
        ),
        ("relay.station.read_certificate",),
    ),
    Fault(
        "--derp-map",
        "a person",
        "ConfigError, 2, with the region that is wrong",
        (U + "control/test_derpmap.py::test_a_file_that_cannot_be_used_is_refused_with_the_place",),
        ("control.derpmap.read_derp_map",),
    ),
    Fault(
        "--auth-key file:PATH",
        "a person",
        "ConfigError, 2: cannot be read, or empty",
        (U + "cli/test_verbs.py::test_up_with_an_auth_key_out_of_a_file",),
        ("cli.joining.read_auth_key",),
    ),
    Fault(
        "a policy, by file or `buri admin policy set`",
        "an administrator",
        "every fault with line and column; the old policy stays in force",
        (
            U + "policy/test_document.py::test_any_text_is_read_or_refused",
            U + "wire/test_hujson.py::test_hostile_texts_are_refused_at_once",
            U + "cli/test_policy.py::test_what_is_no_policy_file_is_said_in_a_sentence",
            U + "control/mapper/test_policies.py::test_a_policy_that_fails_leaves_the_old_one_in_force",
        ),
        ("policy.*", "wire.hujson.*", "cli:policy *", "control.policyfile.PolicyFile.read_again"),
    ),
    Fault(
        "a state directory or socket of another daemon, server or user",
        "a person",
        "InUseError, 5; NotPermittedError, 4; SystemFault, 3; the first one goes on",
        (
            N + "test_faults.py::test_a_second_burid_leaves_the_first_alone_and_a_taken_port_is_passed_by",
            N + "test_faults.py::test_a_server_s_port_or_state_directory_in_use_leaves_the_first_one_alone",
            N + "test_faults.py::test_a_socket_that_cannot_be_made_is_named_and_a_dead_one_replaced",
            N + "test_disk_faults.py::test_a_relay_names_what_keeps_it_from_starting",
        ),
        (),
    ),
    Fault(
        "kill -9, SIGTERM, at any moment",
        "a person, the kernel",
        "the next start is clean; nothing acknowledged is lost; 300 streams end within 2 s",
        (
            N + "test_kill_storm.py::test_a_minute_of_kill_9_loses_nothing_that_was_acknowledged_and_all_converge",
            N + "test_server_stop.py::test_sigterm_with_300_streams_ends_within_two_seconds_and_all_come_back",
        ),
        (),
    ),
]  # fmt: skip

TABLE: list[Fault] = [*PACKETS, *RELAYS, *CONTROL, *NODE, *LOCAL, *PERSONS, *FILES, *SIGN_IN]
