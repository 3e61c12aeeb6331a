"""Peers that are broken, slow or hostile: they get an answer or are cut off, and harm nobody else.

No test waits for a fixed time: each waits for an event, however long a busy machine takes for it.
Deadlines that must not pass in a test are an hour, those that must are below a second.
"""

import socket
import struct
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from ingest.raw_peer import (
    ABORTED,
    ACCEPTED,
    C_CANCEL,
    C_ECHO,
    C_FIND,
    CT,
    DATA,
    DATASET,
    N_EVENT_REPORT,
    NO_DATASET,
    REJECTED,
    RELEASED,
    VERIFICATION,
    RawPeer,
    association_request,
    command_set,
    echo,
    element,
    pdu,
    pdv,
    store,
)
from ingest.test_receiver import dataset_bytes
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import build_context

NEVER = dict.fromkeys(
    ("receiver_request_timeout_s", "receiver_stall_timeout_s", "receiver_pdu_timeout_s", "receiver_idle_timeout_s"),
    "3600",
)


@pytest.fixture
def patient(tmp_path, start_receiver):
    """A receiver whose deadlines do not pass."""
    with start_receiver(tmp_path, tmp_path / "home", receiver_max_associations="4", **NEVER) as running:
        yield running


def held(receiver) -> tuple[int, int]:
    """Descriptors and threads of the receiver's process."""
    process = Path("/proc", str(receiver.process.pid))
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


def holds_no_more_than(receiver, before: tuple[int, int]) -> bool:
    """Whether nothing is left over; it may hold less, as what ended before that may still have been ending."""
    return all(now <= then for now, then in zip(held(receiver), before, strict=True))


def partial_files(receiver) -> list[Path]:
    return list((receiver.spool.incoming / ".tmp").iterdir())


def answers(receiver, source="127.0.0.1") -> bool:
    with RawPeer(receiver, source=source) as peer:
        if peer.associate()[0] != ACCEPTED:
            return False
        peer.send(echo())
        return peer.status() == 0


# Places


@pytest.mark.parametrize("sent", [b"", b"\1", b"\1\0\0\0\1\0", association_request()[:-1]], ids=len)
def test_connections_without_a_whole_request_take_no_place(patient, sent):
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(RawPeer(patient)).send(sent)
        assert answers(patient)


def test_connection_without_a_whole_request_is_closed_at_its_deadline(tmp_path, start_receiver):
    limits = NEVER | {"receiver_request_timeout_s": "0.3"}
    with start_receiver(tmp_path, tmp_path / "home", **limits) as receiver, RawPeer(receiver) as peer:
        peer.send(association_request()[:20])
        assert peer.is_closed()
        assert "KAAPANA_RECEIVER_REQUEST_TIMEOUT_S" in receiver.log


def test_port_scan_leaves_nothing_behind(patient, until):
    before = held(patient)
    for number in range(60):
        with RawPeer(patient) as peer:
            if number % 2:
                peer.reset()
    assert answers(patient)
    until(lambda: holds_no_more_than(patient, before))


def test_connections_without_a_request_are_bounded_and_the_newest_is_served(patient, until):
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(RawPeer(patient))
        assert answers(patient)
        assert answers(patient, source="127.0.0.2")
        assert held(patient)[0] < 250


def test_one_address_cannot_take_all_places(patient, until):
    with ExitStack() as stack:
        for _ in range(3):
            assert stack.enter_context(RawPeer(patient)).associate()[0] == ACCEPTED
        refused = stack.enter_context(RawPeer(patient))
        # PS3.8 9.3.4: rejected for now, by the service provider, local limit exceeded
        assert refused.associate() == pdu(REJECTED, b"\0\2\3\2")
        assert refused.is_closed()
        assert "KAAPANA_RECEIVER_MAX_ASSOCIATIONS_PER_ADDRESS" in patient.log
        assert stack.enter_context(RawPeer(patient, source="127.0.0.2")).associate()[0] == ACCEPTED
        assert stack.enter_context(RawPeer(patient, source="127.0.0.3")).associate() == pdu(REJECTED, b"\0\2\3\2")
        assert "KAAPANA_RECEIVER_MAX_ASSOCIATIONS)" in patient.log
    until(lambda: answers(patient))


def test_one_gateway_may_be_given_all_places(tmp_path, start_receiver):
    limits = {"receiver_max_associations": "4", "receiver_max_associations_per_address": "4"}
    with start_receiver(tmp_path, tmp_path / "home", **limits) as receiver, ExitStack() as stack:
        for _ in range(4):
            assert stack.enter_context(RawPeer(receiver)).associate()[0] == ACCEPTED


# Deadlines


def begin_of_an_object(size: int = 5_000_000) -> bytes:
    """Without the last 6000 bytes of its third last PDU, and the two after it."""
    message = store(bytes(size), instance="1.2.3")
    return message[: len(pdu(DATA, pdv(command_set()))) + 16_012 * (size // 16_000 - 2) - 6_000]


DEADLINES = {
    "6 bytes of a PDU": ("receiver_stall_timeout_s", lambda: echo()[:6]),
    "half a PDU": ("receiver_stall_timeout_s", lambda: echo()[:40]),
    "an object in mid-PDU": ("receiver_stall_timeout_s", begin_of_an_object),
    "an object between two PDUs": ("receiver_idle_timeout_s", lambda: pdu(DATA, pdv(command_set()))),
    "nothing": ("receiver_idle_timeout_s", lambda: b""),
}


@pytest.mark.parametrize(("limit", "sent"), DEADLINES.values(), ids=DEADLINES)
def test_association_that_sends_nothing_more_is_aborted_at_its_deadline(tmp_path, start_receiver, limit, sent, until):
    with start_receiver(tmp_path, tmp_path / "home", **NEVER | {limit: "0.3"}) as receiver:
        before = held(receiver)
        with RawPeer(receiver) as peer:
            assert peer.associate()[0] == ACCEPTED
            peer.send(sent())
            assert peer.read()[0] == ABORTED
            assert peer.is_closed()
        until(lambda: holds_no_more_than(receiver, before))
        assert partial_files(receiver) == []
        assert f"KAAPANA_{limit.upper()}" in receiver.log


@pytest.mark.parametrize("size", [1, 9], ids=["a PDU of single bytes", "an object of tiny PDUs"])
def test_object_that_trickles_in_is_aborted_at_its_deadline(tmp_path, start_receiver, size, until):
    limits = NEVER | {"receiver_pdu_timeout_s": "1"}
    with start_receiver(tmp_path, tmp_path / "home", **limits) as receiver, RawPeer(receiver) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(pdu(DATA, pdv(command_set())))
        trickle = (
            pdu(DATA, pdv(bytes(60_000), command=False))
            if size == 1
            else pdu(DATA, pdv(b"", command=False, last=False))
        )
        ended = threading.Event()

        def send() -> None:
            while not ended.wait(0.02):
                for begin in range(0, len(trickle), size) if size == 1 else (0,):
                    try:
                        peer.send(trickle[begin : begin + 1] if size == 1 else trickle)
                    except OSError:
                        return
                    if ended.wait(0.02):
                        return

        sender = threading.Thread(target=send)
        sender.start()
        try:
            assert peer.is_closed()
        finally:
            ended.set()
            sender.join()
        assert "KAAPANA_RECEIVER_PDU_TIMEOUT_S" in receiver.log


def test_slow_sender_that_keeps_sending_is_served(tmp_path, start_receiver, instance):
    limits = NEVER | {"receiver_idle_timeout_s": "20", "receiver_stall_timeout_s": "20"}
    ds = instance(pixels=2_000)
    message = store(dataset_bytes(ds), instance=ds.SOPInstanceUID)
    with start_receiver(tmp_path, tmp_path / "home", **limits) as receiver, RawPeer(receiver) as peer:
        assert peer.associate()[0] == ACCEPTED
        for begin in range(0, len(message), 100):
            peer.send(message[begin : begin + 100])
            assert answers(receiver)  # the time of a whole association passes
        assert peer.status() == 0


# Messages


def garbage(number: int) -> bytes:
    return struct.pack("<L", number * 2654435761 % 2**32) * 50


ABORTS = {
    "no command field": pdu(DATA, pdv(command_set(None))),
    "no message ID": pdu(DATA, pdv(command_set(message_id=None))),
    "no data set type": pdu(DATA, pdv(command_set(dataset=None))),
    "command field of four bytes": pdu(DATA, pdv(element(0x0100, bytes(4)))),
    "a response": pdu(DATA, pdv(command_set(0x8001, dataset=NO_DATASET))),
    "a response with an unknown field": pdu(DATA, pdv(command_set(0xFFFF, dataset=NO_DATASET))),
    "C-CANCEL out of nowhere": pdu(DATA, pdv(command_set(C_CANCEL, dataset=NO_DATASET))),
    "empty command set": pdu(DATA, pdv(b"")),
    "garbage as command set": pdu(DATA, pdv(garbage(1))),
    "command set cut short": pdu(DATA, pdv(command_set()[:-3])),
    "element of 4 GiB in a command set": pdu(DATA, pdv(struct.pack("<HHL", 0, 0x100, 0xFFFFFFFF))),
    "elements of another group": pdu(DATA, pdv(command_set() + element(0x0010, b"x", group=8))),
    "command set without end": b"".join(pdu(DATA, pdv(bytes(16_000), last=False)) for _ in range(6)),
    "unknown presentation context": pdu(DATA, pdv(command_set(), context=77)),
    "presentation context 0": pdu(DATA, pdv(command_set(), context=0)),
    "two presentation contexts": pdu(DATA, pdv(command_set()) + pdv(b"", command=False, context=VERIFICATION)),
    "dataset before any command": pdu(DATA, pdv(b"x", command=False)),
    "command within a dataset": pdu(DATA, pdv(command_set()) + pdv(command_set())),
    "dataset after a request without one": pdu(
        DATA, pdv(command_set(C_ECHO, dataset=NO_DATASET))[:0] + pdv(b"x", command=False)
    ),
    "dataset flag, then the next request": pdu(DATA, pdv(command_set())) + echo(),
    "three requests in one PDU": pdu(DATA, pdv(command_set(C_ECHO, dataset=NO_DATASET)) * 3),
    "PDV longer than its PDU": pdu(DATA, struct.pack(">LBB", 1000, CT, 3) + b"x"),
    "PDV of 4 GiB": pdu(DATA, struct.pack(">LBB", 0xFFFFFFFF, CT, 3)),
    "PDV of length 0": pdu(DATA, struct.pack(">LBB", 0, CT, 3)),
    "PDV of length 1": pdu(DATA, struct.pack(">LB", 1, CT) + pdv(command_set())),
    "PDV cut within its length": pdu(DATA, pdv(command_set()) + b"\0\0"),
    "P-DATA of length 0": pdu(DATA, b""),
    "P-DATA of length 5": pdu(DATA, bytes(5)),
    "P-DATA of 4 GiB": struct.pack(">BxL", DATA, 0xFFFFFFFF),
    "P-DATA of 17 MiB": struct.pack(">BxL", DATA, 17 * 1024**2),
    "release request of 4 GiB": struct.pack(">BxL", 0x05, 0xFFFFFFFF),
    "release request of length 0": pdu(0x05, b""),
    "abort of length 0": pdu(0x07, b""),
    "abort with an unknown reason": pdu(0x07, b"\0\0\2\3"),
    "second association request": association_request(),
    "association accept": pdu(0x02, bytes(100)),
    "association reject": pdu(0x03),
    "release response": pdu(0x06),
    "PDU of type 0": pdu(0x00),
    "PDU of type 8": pdu(0x08),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303"),
    "random bytes": garbage(7),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One receiver for the tables below: what one row leaves behind would fail the next."""
    from ingest.conftest import receiving

    folder = tmp_path_factory.mktemp("shared")
    with receiving(folder, folder / "home", **NEVER) as running:
        yield running


@pytest.fixture
def unharmed(shared, until):
    """After each row: no thread, descriptor or file is left, another association went on, no traceback."""
    before = held(shared)
    with RawPeer(shared, source="127.0.0.2") as other:
        assert other.associate()[0] == ACCEPTED
        yield shared
        other.send(echo())
        assert other.status() == 0
    until(lambda: holds_no_more_than(shared, before))
    assert partial_files(shared) == []
    assert "Traceback" not in shared.log
    assert shared.spool.series() == []


@pytest.mark.parametrize("sent", ABORTS.values(), ids=ABORTS)
def test_violation_of_the_protocol_is_aborted(unharmed, sent):
    with RawPeer(unharmed) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(sent)
        assert peer.is_closed()


OUT_OF_PLACE = {
    "data": echo(),
    "release request": pdu(0x05),
    "release response": pdu(0x06),
    "association accept": pdu(0x02, bytes(100)),
    "association reject": pdu(0x03),
    "abort": pdu(0x07),
    "unknown type": pdu(0x42),
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "request of length 0": pdu(0x01, b""),
    "request of 4 GiB": struct.pack(">BxL", 1, 0xFFFFFFFF),
    "request of zeros": pdu(0x01, bytes(300)),
    "request of garbage": pdu(0x01, garbage(3) + garbage(5)),
    "request of protocol version 0": association_request().replace(b"\0\1\0\0", bytes(4), 1),
    "request without contexts": pdu(0x01, association_request()[6:74]),
    "request with a context without transfer syntax": pdu(
        0x01, association_request()[6:74] + b"\x20\0\0\x08\1\0\0\0" + b"\x30\0\0\0"
    ),
    "request with an item that lies about its length": pdu(
        0x01, association_request()[6:74] + b"\x20\0\xff\xff\1\0\0\0"
    ),
    "request with a release at once": association_request() + pdu(0x05) + echo(),
    "two requests": association_request() * 2,
    "request and garbage": association_request() + b"\xff" * 1000,
}


@pytest.mark.parametrize("sent", OUT_OF_PLACE.values(), ids=OUT_OF_PLACE)
def test_connection_that_begins_with_nonsense_ends(unharmed, sent):
    with RawPeer(unharmed) as peer:
        peer.send(sent)
        while answer := peer.read():
            assert answer[0] in (ABORTED, REJECTED, ACCEPTED, RELEASED)


STATUSES = {
    "C-FIND": (command_set(C_FIND), 0x0211),
    "N-EVENT-REPORT": (command_set(N_EVENT_REPORT, dataset=NO_DATASET), 0x0211),
    "unknown operation": (command_set(0x0F0F), 0x0211),
    "no SOP Instance UID": (command_set(instance=None), 0x0117),
    "empty SOP Instance UID": (command_set(instance=b""), 0x0117),
    "SOP Instance UID of spaces": (command_set(instance=b"  "), 0x0117),
    "SOP Instance UID that leaves the folder": (command_set(instance=b"../../x\0"), 0x0117),
    "SOP Instance UID of 60000 bytes": (command_set(instance=b"1" * 60_000), 0x0117),
    "SOP Instance UID that is no text": (command_set(instance=b"\xff\xfe"), 0x0117),
    "no SOP Class UID": (command_set(sop_class=None), 0x0122),
    "no dataset": (command_set(dataset=NO_DATASET), 0xC000),
    "empty dataset": (command_set(), 0xC000),
}


@pytest.mark.parametrize(("asked", "status"), STATUSES.values(), ids=STATUSES)
def test_request_that_cannot_be_served_gets_its_status_and_the_association_goes_on(unharmed, asked, status):
    with RawPeer(unharmed) as peer:
        assert peer.associate()[0] == ACCEPTED
        has_dataset = struct.pack("<HHLH", 0, 0x0800, 2, DATASET) in asked
        for begin in range(0, len(asked), 10_000):
            peer.send(pdu(DATA, pdv(asked[begin : begin + 10_000], last=begin + 10_000 >= len(asked))))
        if has_dataset:
            peer.send(pdu(DATA, pdv(b"", command=False)))
        assert peer.status() == status
        peer.send(echo())
        assert peer.status() == 0


def test_object_in_the_context_of_verification_is_refused(unharmed):
    with RawPeer(unharmed) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(pdu(DATA, pdv(command_set(), context=VERIFICATION) + pdv(b"x", command=False, context=VERIFICATION)))
        assert peer.status() == 0x0122


# Ends in the middle


def half_close(peer: RawPeer) -> None:
    peer.sock.shutdown(socket.SHUT_WR)


ENDS = {
    "closed": lambda peer: peer.sock.close(),
    "reset": lambda peer: peer.reset(),
    "half closed": half_close,
    "aborted between two PDUs": lambda peer: peer.send(bytes(6_000) + pdu(0x07)),
    "of an unknown type": lambda peer: peer.send(bytes(6_000) + pdu(0x42)),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("size", [100_000, 6_000_000], ids=["in memory", "through a file"])
def test_object_that_breaks_off_is_removed_and_the_rest_stays(patient, instance, size, end, until):
    ds = instance()
    with RawPeer(patient) as peer:  # the spool keeps the series' folder open
        assert peer.associate()[0] == ACCEPTED
        peer.send(store(dataset_bytes(ds), instance=ds.SOPInstanceUID))
        assert peer.status() == 0
    until(lambda: patient.spool.ready(0) == [ds.SeriesInstanceUID])
    before = held(patient)
    with RawPeer(patient) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(store(dataset_bytes(ds), instance=ds.SOPInstanceUID))
        assert peer.status() == 0
        assert patient.spool.ready(0) == []
        peer.send(begin_of_an_object(size))
        end(peer)
        # The mark of the association holds the series back no longer, though its peer may keep the connection.
        until(lambda: patient.spool.ready(0) == [ds.SeriesInstanceUID])
    until(lambda: holds_no_more_than(patient, before))
    assert partial_files(patient) == []
    assert len(list(patient.spool.files(ds.SeriesInstanceUID))) == 1
    assert "Traceback" not in patient.log


def test_peer_that_closes_its_side_after_an_object_gets_its_answer(patient, instance):
    ds = instance()
    with RawPeer(patient) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(store(dataset_bytes(ds), instance=ds.SOPInstanceUID))
        half_close(peer)
        assert peer.status() == 0


def test_object_whose_sender_does_not_wait_for_the_answer_is_stored(patient, instance, until):
    ds = instance()
    with RawPeer(patient) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(store(dataset_bytes(ds), instance=ds.SOPInstanceUID))
        peer.sock.close()
    until(lambda: patient.spool.ready(0) == [ds.SeriesInstanceUID])


def test_requests_sent_without_waiting_are_answered_one_after_the_other(patient):
    with RawPeer(patient) as peer:
        assert peer.associate()[0] == ACCEPTED
        peer.send(b"".join(echo(number) for number in range(200)) + pdu(0x05))
        assert [peer.status() for _ in range(200)] == [0] * 200
        assert peer.read()[0] == RELEASED


def test_descriptors_of_ended_associations_are_closed_at_once(patient, until):
    before = held(patient)
    for _ in range(30):
        assert answers(patient)
        with RawPeer(patient) as peer:
            peer.associate()
            peer.send(pdu(0x05))
            assert peer.read()[0] == RELEASED
        until(lambda: held(patient)[0] <= before[0] + 8)
    until(lambda: holds_no_more_than(patient, before))


# Presentation contexts


def standard_sop_classes() -> dict[str, bool]:
    """Each SOP class of the standard by name, and whether it stores objects that belong to a series."""
    from pydicom.uid import UID_dictionary

    of_no_series = (
        "1.2.840.10008.1.3.10",
        "1.2.840.10008.1.20.",
        "1.2.840.10008.5.1.4.1.1.200.",
        "1.2.840.10008.5.1.4.1.1.201.",
    )
    of_no_patient = tuple(f"1.2.840.10008.5.1.4.{number}." for number in (38, 39, 43, 44, 45))
    return {
        uid: "Storage" in name and not uid.startswith(of_no_series + of_no_patient)
        for uid, (name, kind, *_) in UID_dictionary.items()
        if kind in ("SOP Class", "Meta SOP Class", "Service Class") and name and uid != "1.2.840.10008.4.2"
    } | {"1.2.840.10008.5.1.4.1.1.200.2": True, "1.2.840.10008.5.1.4.1.1.200.8": True, "1.2.840.10008.1.1": True}


def negotiated(receiver, *uids: str, syntaxes=(ExplicitVRLittleEndian,)) -> dict[str, int]:
    """The result of each presentation context (PS3.8 table 9-18)."""
    results = {}
    for begin in range(0, len(uids), 100):
        part = uids[begin : begin + 100]
        with RawPeer(receiver) as peer:
            answer = peer.associate(*(build_context(uid, list(syntaxes)) for uid in part))
            assert answer[0] == ACCEPTED
            offset = 74
            while offset < len(answer):
                kind, length = struct.unpack_from(">BxH", answer, offset)
                if kind == 0x21:
                    results[part[(answer[offset + 4] - 1) // 2]] = answer[offset + 6]
                offset += 4 + length
    return results


def test_sop_classes_that_store_nothing_are_rejected_and_all_others_accepted(patient):
    expected = standard_sop_classes()
    assert sum(expected.values()) > 150
    results = negotiated(patient, *expected)
    assert {uid: result for uid, result in results.items() if result != (0 if expected[uid] else 3)} == {}
    assert results["1.2.840.10008.5.1.4.31"] == 3
    assert len(results) == len(expected)


def test_unknown_and_private_sop_classes_are_accepted(patient):
    uids = "1.2.840.10008.5.1.4.1.1.999.1", "1.3.46.670589.11.0.0.12.1", "1.2.276.0.7230010.3.1.0.1"
    assert negotiated(patient, *uids) == dict.fromkeys(uids, 0)


@pytest.mark.parametrize("first", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, UID("1.2.3.4.5")], ids=str)
def test_first_transfer_syntax_that_is_proposed_is_taken_for_every_context(patient, first):
    others = [uid for uid in (ImplicitVRLittleEndian, ExplicitVRLittleEndian) if uid != first]
    contexts = build_context(CTImageStorage, others), build_context(CTImageStorage, [first, *others])
    with RawPeer(patient) as peer:
        answer = peer.associate(*contexts)
        accepted = [b"@\0" + struct.pack(">H", len(uid)) + uid.encode() for uid in (others[0], first)]
        assert [answer.count(item) for item in accepted] == [1, 1]
