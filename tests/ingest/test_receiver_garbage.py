"""Bytes that nobody thought of: each input ends with an answer or the end of the association."""

import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ingest.conftest import receiving
from ingest.raw_peer import ACCEPTED, CT, DATA, RawPeer, association_request, command_set, echo, element, pdu, pdv

from kaapana_assets.ingest.dimse_commands import ProtocolViolation, read_command, response_to

FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHORT = st.binary(max_size=200)
NUMBERS = st.sampled_from([0x0000, 0x0002, 0x0100, 0x0110, 0x0120, 0x0800, 0x0900, 0x1000, 0x1001])
FIELDS = st.one_of(st.none(), st.integers(0, 0xFFFF))

commands = st.one_of(
    SHORT,
    st.builds(command_set, FIELDS, message_id=FIELDS, dataset=FIELDS, sop_class=SHORT, instance=st.none() | SHORT),
    st.lists(st.builds(element, NUMBERS, SHORT), max_size=6).map(b"".join),
    st.builds(lambda at: command_set()[:at], st.integers(0, 150)),
)
fragments = st.builds(
    pdv,
    commands,
    context=st.sampled_from([CT, CT, CT, 3, 0, 255]),
    last=st.booleans(),
    command=st.booleans(),
)
lying = st.builds(
    lambda size, data: struct.pack(">LB", size, CT) + data, st.integers(0, 2**32 - 1) | st.integers(0, 20), SHORT
)
bodies = st.lists(fragments | lying, max_size=4).map(b"".join)
pdus = st.one_of(
    st.builds(pdu, st.just(DATA), bodies), st.builds(pdu, st.integers(0, 255), SHORT), st.just(echo()), SHORT
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("garbage")
    with receiving(folder, folder / "home") as running:
        yield running


def end_of(peer: RawPeer) -> None:
    """Wait for the end of the connection; what was sent may be the beginning of something, so say that it is all."""
    with suppress(OSError):  # ended already
        peer.sock.shutdown(socket.SHUT_WR)
    while peer.read():
        pass


def is_unharmed(receiver) -> bool:
    with RawPeer(receiver) as peer:
        if peer.associate()[0] != ACCEPTED:
            return False
        peer.send(echo())
        return peer.status() == 0 and "Traceback" not in receiver.log


@FEW
@given(sent=st.lists(pdus, min_size=1, max_size=3).map(b"".join))
def test_association_ends_whatever_is_sent_in_it(shared, sent):
    with RawPeer(shared) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(sent)
        end_of(peer)
    assert is_unharmed(shared)
    assert list((shared.spool.incoming / ".tmp").iterdir()) == []


@FEW
@given(at=st.integers(6, 300), change=st.binary(min_size=1, max_size=8), cut=st.integers(0, 100))
def test_connection_ends_however_its_request_is_damaged(shared, at, change, cut):
    whole = association_request()
    body = bytearray(whole[6:])
    at %= len(body)
    body[at : at + len(change)] = change
    with RawPeer(shared) as peer:
        peer.send(pdu(0x01, bytes(body[: max(68, len(body) - cut)])))
        end_of(peer)
    assert is_unharmed(shared)


@settings(max_examples=200, deadline=None)
@given(data=commands)
def test_command_set_is_read_or_refused_and_what_is_read_can_be_answered(data):
    try:
        command = read_command(data)
    except ProtocolViolation:
        return
    answer = response_to(command, 0x0211)
    assert len(answer) < 300
    assert len(answer) % 2 == 0
