"""LocalAPI's structs against Go's JSON: names, zero values, edits."""

from __future__ import annotations

import json

import msgspec
import pytest

from buri.wire.localapi import BackendState, MaskedPrefs, Notify, PeerStatus, Prefs, Status, mask
from buri.wire.tailcfg.node import UserProfile

# What `tailscale up --login-server=http://10.77.0.1:8080 --hostname=h` of v1.102.5 sends as MaskedPrefs, shortened.
GO_EDIT = (
    b'{"ControlURL":"http://10.77.0.1:8080","RouteAll":false,"ExitNodeID":"","ExitNodeIP":"","CorpDNS":true,'
    b'"WantRunning":true,"Hostname":"h","AdvertiseRoutes":null,"Sync":null,"NetfilterMode":2,'
    b'"AutoUpdate":{"Check":true,"Apply":null},"AppConnector":{"Advertise":false},"Config":null,'
    b'"WantRunningSet":true,"HostnameSet":true,"AutoUpdateSet":{"CheckSet":true},"NeverHeardOf":1}'
)


def test_an_edit_as_go_writes_it_changes_only_what_it_sets() -> None:
    edit = msgspec.json.decode(GO_EDIT, type=MaskedPrefs)
    before = Prefs(control_url="https://stays.example", corp_dns=False)
    after = edit.apply_to(before)
    assert set(edit.names_set()) == {"want_running", "hostname", "auto_update"}
    assert (after.hostname, after.want_running, after.auto_update.check) == ("h", True, True)
    assert (after.control_url, after.corp_dns) == ("https://stays.example", False)
    assert before.hostname == ""


def test_every_preference_but_the_hidden_ones_has_its_set_flag() -> None:
    flags = set(MaskedPrefs.__struct_fields__) - set(Prefs.__struct_fields__)
    hidden = {"config", "internal_exit_node_prior"}
    assert flags == {f"{name}_set" for name in Prefs.__struct_fields__ if name not in hidden}


def test_mask_makes_an_edit_of_exactly_these() -> None:
    edit = mask(hostname="tokyo", shields_up=False)
    assert set(edit.names_set()) == {"hostname", "shields_up"}
    with pytest.raises(TypeError):
        mask(no_such_preference=1)


def test_status_writes_every_field_and_integer_map_keys_as_text() -> None:
    status = Status(peer={"nodekey:aa": PeerStatus(host_name="osaka")}, user={7: UserProfile(id=7)})
    written = json.loads(msgspec.json.encode(status))
    assert written["Self"]["PublicKey"] == "nodekey:" + "0" * 64
    assert written["Peer"]["nodekey:aa"]["LastSeen"] == "0001-01-01T00:00:00Z"
    assert written["TailscaleIPs"] is None
    assert list(written["User"]) == ["7"]
    assert {"CurAddr", "Relay", "RxBytes", "TxBytes", "Online", "sshHostKeys"} <= set(written["Self"])
    assert msgspec.json.decode(msgspec.json.encode(status), type=Status) == status


def test_notify_says_only_what_it_has_to_say() -> None:
    assert msgspec.json.encode(Notify(state=BackendState.RUNNING)) == b'{"State":6}'
    assert msgspec.json.encode(Notify(err_message="")) == b'{"ErrMessage":""}'


def test_states_bear_upstreams_names() -> None:
    assert [state.label for state in BackendState] == [
        "NoState",
        "InUseOtherUser",
        "NeedsLogin",
        "NeedsMachineAuth",
        "Stopped",
        "Starting",
        "Running",
    ]
