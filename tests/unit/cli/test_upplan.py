"""What `up` decides: an edit, going online, a start, or a refusal that loses nothing."""

from __future__ import annotations

import pytest

from buri.cli.prefflags import changes, flag_text
from buri.cli.upplan import Edit, GoOnline, Start, plan_up
from buri.core.errors import ConfigError, StateError
from buri.wire.localapi import Persist, Prefs
from buri.wire.tailcfg.node import UserProfile

URL = "https://buri.example.com"
ALICE = Persist(user_profile=UserProfile(id=7, login_name="alice@example.com"))


def test_the_first_up_starts_with_defaults_and_makes_the_sudo_user_operator() -> None:
    plan = plan_up({"login-server": URL + "/"}, Prefs(), "NeedsLogin", sudo_user="alice")
    assert isinstance(plan, Start)
    assert (plan.prefs.control_url, plan.prefs.operator_user, plan.prefs.want_running) == (URL, "alice", True)


def test_a_given_operator_wins_over_the_sudo_user() -> None:
    plan = plan_up({"login-server": URL, "operator": "bob"}, Prefs(), "NeedsLogin", sudo_user="alice")
    assert isinstance(plan, Start)
    assert plan.prefs.operator_user == "bob"


def test_without_any_server_it_says_how_to_name_one() -> None:
    with pytest.raises(ConfigError, match="--login-server=URL"):
        plan_up({}, Prefs(), "NeedsLogin")


def test_a_bare_up_of_a_node_that_was_logged_in_goes_online() -> None:
    current = Prefs(control_url=URL, hostname="tokyo", config=ALICE)
    plan = plan_up({}, current, "Stopped")
    assert isinstance(plan, GoOnline)
    assert plan.edit.names_set() == ("want_running",)


def test_an_up_that_would_lose_settings_is_refused_with_the_command_to_type() -> None:
    current = Prefs(control_url=URL, hostname="tokyo", shields_up=True, corp_dns=False, operator_user="a", config=ALICE)
    with pytest.raises(ConfigError) as refused:
        plan_up({"accept-routes": True}, current, "Running")
    assert refused.value.message.endswith("\tburi up --accept-routes --accept-dns=false --hostname=tokyo --shields-up")
    assert refused.value.exit_code == 2


def test_reset_lets_settings_go_but_not_the_server() -> None:
    current = Prefs(control_url=URL, hostname="tokyo", shields_up=True, config=ALICE)
    plan = plan_up({}, current, "Running", reset=True)
    assert isinstance(plan, Edit)
    after = plan.edit.apply_to(current)
    assert (after.control_url, after.hostname, after.shields_up) == (URL, "", False)


def test_a_running_node_needs_only_an_edit_of_what_was_given() -> None:
    current = Prefs(control_url=URL, want_running=True, config=ALICE)
    plan = plan_up({"login-server": URL, "hostname": "kyoto"}, current, "Running")
    assert isinstance(plan, Edit)
    assert set(plan.edit.names_set()) == {"want_running", "control_url", "hostname"}


@pytest.mark.parametrize(("force", "auth_key"), [(True, False), (False, True)])
def test_a_running_node_starts_anew_for_a_new_login(force: bool, auth_key: bool) -> None:
    current = Prefs(control_url=URL, config=ALICE)
    plan = plan_up({"login-server": URL}, current, "Running", force=force, auth_key=auth_key)
    assert isinstance(plan, Start)


def test_new_tags_need_a_start() -> None:
    current = Prefs(control_url=URL, config=ALICE)
    plan = plan_up({"login-server": URL, "advertise-tags": "lab,tag:web"}, current, "Running")
    assert isinstance(plan, Start)
    assert plan.prefs.advertise_tags == ["tag:lab", "tag:web"]


def test_a_running_node_does_not_move_to_another_server_by_the_way() -> None:
    current = Prefs(control_url=URL, config=ALICE)
    with pytest.raises(StateError, match="--force-reauth"):
        plan_up({"login-server": "https://other.example"}, current, "Running")
    assert isinstance(plan_up({"login-server": "https://other.example"}, current, "Running", force=True), Start)


@pytest.mark.parametrize("text", ["buri.example.com", "ftp://x", "https://", ""])
def test_a_login_server_is_a_url(text: str) -> None:
    with pytest.raises(ConfigError, match="--login-server"):
        changes({"login-server": text})


def test_flags_are_written_so_that_a_shell_takes_them() -> None:
    assert flag_text("hostname", "a b") == "--hostname='a b'"
    assert flag_text("hostname", "") == "--hostname="
    assert (flag_text("qr", True), flag_text("qr", False)) == ("--qr", "--qr=false")
