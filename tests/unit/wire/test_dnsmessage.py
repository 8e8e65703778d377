"""DNS messages, read and written beside dnspython."""

from __future__ import annotations

from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buri.core.errors import WireError
from buri.wire.dnsmessage import (
    ResponseCode,
    aged,
    build_answer,
    build_failure,
    build_name,
    build_query,
    parse_answer,
    parse_query,
    truncated,
    with_id,
)

V4, V6 = ip_address("100.64.0.7"), ip_address("fd7a:115c:a1e0::7")


def question(name: str = "Home.Tail.Example.", kind: str = "A", **options: object) -> bytes:
    return dns.message.make_query(name, kind, **options).to_wire()  # type: ignore[arg-type]


def test_a_query_reads_as_dnspython_wrote_it() -> None:
    query = parse_query(question(kind="AAAA", use_edns=0, payload=1400))
    assert (query.name, query.type, query.edns, query.udp_bytes) == ("home.tail.example", 28, True, 1400)
    assert query.in_internet
    plain = parse_query(question("."))
    assert (plain.name, plain.edns, plain.udp_bytes) == ("", False, 512)


def test_answers_read_for_dnspython_and_repeat_the_askers_spelling() -> None:
    data = question(use_edns=0)
    answer = dns.message.from_wire(build_answer(parse_query(data), (V4,), ttl_s=5))
    assert dns.message.from_wire(data).is_response(answer)
    assert answer.answer == [dns.rrset.from_text("home.tail.example.", 5, "IN", "A", str(V4))]
    assert answer.flags & (dns.flags.AA | dns.flags.RA | dns.flags.RD) == dns.flags.AA | dns.flags.RA | dns.flags.RD
    assert answer.edns == 0
    assert b"Home" in build_answer(parse_query(data), (V4,), ttl_s=5)
    six = dns.message.from_wire(build_answer(parse_query(question(kind="AAAA")), (V6,), ttl_s=5))
    assert six.answer[0][0].to_text() == str(V6)
    pointer = parse_query(question("7.0.64.100.in-addr.arpa.", "PTR"))
    assert dns.message.from_wire(build_answer(pointer, ("home.x",), ttl_s=5)).answer[0][0].to_text() == "home.x."


def test_what_is_absent_carries_the_zone_that_says_so() -> None:
    query = parse_query(question())
    answer = dns.message.from_wire(build_answer(query, code=ResponseCode.NAME_ERROR, ttl_s=10, zone="tail.example"))
    assert answer.rcode() == dns.rcode.NXDOMAIN
    assert answer.authority[0].name.to_text() == "tail.example."
    assert (answer.authority[0].ttl, answer.authority[0][0].minimum) == (10, 10)


def test_an_answer_too_large_for_udp_is_cut_to_its_question() -> None:
    query = parse_query(question())
    answer = build_answer(query, tuple(ip_address(0x64400000 + n) for n in range(100)), ttl_s=5)
    assert truncated(answer, query, 4095) == answer
    cut = dns.message.from_wire(truncated(answer, query, 512))
    assert cut.flags & dns.flags.TC
    assert not cut.answer


def test_an_upstreams_answer_tells_its_shortest_life_and_ages() -> None:
    response = dns.message.make_response(dns.message.make_query("a.example.", "A", use_edns=0))
    response.answer.append(dns.rrset.from_text("a.example.", 300, "IN", "CNAME", "b.example."))
    response.answer.append(dns.rrset.from_text("b.example.", 60, "IN", "A", "192.0.2.1"))
    data = response.to_wire()
    said = parse_answer(data)
    assert (said.id, said.code, said.truncated, said.ttl_s) == (response.id, 0, False, 60)
    older = dns.message.from_wire(with_id(aged(data, 100), 7))
    assert (older.id, [rrset.ttl for rrset in older.answer]) == (7, [200, 0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 11,
        b"\0" * 12,
        bytes(4) + b"\0\2" + bytes(6),
        bytes(4) + b"\0\1" + bytes(6) + b"\x3f",
        bytes(4) + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1",
        bytes(4) + b"\0\1" + bytes(6) + b"\1a" * 200 + b"\0\0\1\0\1",
        bytes(4) + b"\0\1" + bytes(6) + b"\1a\0\0",
        b"\0\0\x80" + bytes(9),
    ],
)
def test_what_is_no_query_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        parse_query(data)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(data: bytes) -> None:
    for reader in (parse_query, parse_answer):
        try:
            reader(data)
        except WireError:
            continue
    failure = build_failure(data, ResponseCode.FORMAT_ERROR)
    assert failure is None or len(failure) == 12


@given(st.from_regex(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63}){0,2}", fullmatch=True), st.integers(0, 65535))
def test_questions_go_round(name: str, message_id: int) -> None:
    query = parse_query(build_query(message_id, name, 1))
    assert (query.id, query.name, query.type) == (message_id, name, 1)


@pytest.mark.parametrize("name", ["a..b", "a" * 64, ".".join(["a" * 60] * 5), "ä.example"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        build_name(name)
