"""What is relied on of pynetdicom that it does not document: named here, and held by the exact version."""

from __future__ import annotations

import ast
import inspect
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pynetdicom import AE, _config
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.transport import AssociationSocket

from kaapana_assets.ingest import acceptor, connection
from kaapana_assets.settings import PROJECT_ROOT

PACKAGE = PROJECT_ROOT / "kaapana_assets"

PRIVATE: dict[type, set[str]] = {
    # Negotiated contexts by their ids, those that were refused, and the method that a request is given to.
    Association: {"_accepted_cx", "_rejected_cx", "_serve_request"},
    # The PDU that an event is about, and the pause between two looks for one.
    DULServiceProvider: {"_recv_pdu", "_run_loop_delay"},
    # Ends the connection, whoever asks.
    AssociationSocket: {"_shutdown_socket"},
}
SWITCHES = {"LOG_HANDLER_LEVEL", "STORE_SEND_CHUNKED_DATASET", "UNRESTRICTED_STORAGE_SERVICE"}
# Public by name, and nowhere said to be for others: methods that are replaced, and what they work with.
REPLACED: dict[type, tuple[type, set[str]]] = {
    acceptor.AcceptedAssociation: (Association, {"run"}),
    acceptor._Acse: (ACSE, {"send_accept", "send_reject"}),
    acceptor._Dimse: (DIMSEServiceProvider, {"get_msg", "receive_primitive"}),
    acceptor._StateMachine: (StateMachine, {"do_action"}),
    connection.Connection: (AssociationSocket, {"ready", "recv", "send"}),
}
USED: dict[type, set[str]] = {
    Association: {"acceptor", "acse", "dimse", "dul", "network_timeout", "requestor", "set_socket"},
    DIMSEServiceProvider: {"dul", "msg_queue"},
    DULServiceProvider: {
        "assoc", "event_queue", "kill_dul", "send_pdu", "socket", "state_machine", "to_provider_queue", "to_user_queue"
    },
    ACSE: {"assoc"},
    StateMachine: {"current_state", "dul"},
    AssociationSocket: {"event_queue", "socket"},
}  # fmt: skip


@pytest.fixture(scope="module")
def made() -> Iterator[dict[type, object]]:
    """One object of each class, as pynetdicom makes it."""
    assoc = Association(AE(), "acceptor")
    with socket.socket() as client:
        sock = AssociationSocket(assoc, client_socket=client)
        assoc.set_socket(sock)
        yield {
            Association: assoc,
            DULServiceProvider: assoc.dul,
            ACSE: assoc.acse,
            DIMSEServiceProvider: assoc.dimse,
            StateMachine: assoc.dul.state_machine,
            AssociationSocket: sock,
        }


def of_pynetdicom() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if re.search("^ *from pynetdicom", path.read_text(), re.M)]


def private_names(path: Path) -> set[str]:
    """Private attributes that a module reads, sets or defines, with the switches of ``pynetdicom._config``."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            is_switch = isinstance(node.value, ast.Name) and node.value.id == "_config"
            found |= {node.attr} if is_switch or node.attr.startswith("_") else set()
        elif isinstance(node, ast.FunctionDef) and node.name.startswith("_"):
            found.add(node.name)
    return {name for name in found if not name.startswith("__")}


def test_the_version_whose_inside_is_known_is_the_one_that_is_installed():
    project = (PROJECT_ROOT / "pyproject.toml").read_text()
    assert re.search(r'^  "pynetdicom==[0-9.]+",$', project, re.M)
    assert re.search(r'^  "dagster==[0-9.]+",$', project, re.M)


@pytest.mark.parametrize("table", [PRIVATE, USED], ids=["private", "used"])
def test_all_that_is_relied_on_is_there(made, table):
    for kind, names in table.items():
        assert {name for name in names if not hasattr(made[kind], name)} == set(), kind
    assert {name for name in SWITCHES if not hasattr(_config, name)} == set()


def test_nothing_private_is_used_that_is_not_named_here(made):
    """A private name of our own that pynetdicom has as well would be taken for its own, and is told here too."""
    theirs = {name for thing in made.values() for name in dir(thing) if name.startswith("_")} | set(dir(_config))
    ours = set().union(*(private_names(path) for path in (PACKAGE / "ingest" / f for f in INSIDE)))
    ours |= {name for path in of_pynetdicom() for name in private_names(path) if name in dir(_config)}
    assert ours & theirs == set().union(*PRIVATE.values()) | SWITCHES


INSIDE = ("acceptor.py", "connection.py")


def test_only_two_modules_know_the_inside():
    known = {PACKAGE / "ingest" / name for name in INSIDE}
    inner = "|".join(("acse", "association", "dimse", "dul", "fsm", "transport"))
    imports = re.compile(rf"^from pynetdicom\.({inner}) import", re.M)
    assert {path for path in of_pynetdicom() if imports.search(path.read_text())} == known


@pytest.mark.parametrize("ours", REPLACED, ids=lambda each: each.__name__)
def test_what_is_replaced_is_called_as_before(ours):
    theirs, names = REPLACED[ours]
    private = {name for name in PRIVATE.get(theirs, ()) if name in vars(ours)}
    replaced = {name for name in vars(ours) if name in dir(theirs) and not name.startswith("__")} - private
    assert replaced - {"name"} == names
    for name in names | private:
        before, now = inspect.getattr_static(theirs, name), inspect.getattr_static(ours, name)
        assert isinstance(before, property) is isinstance(now, property), name
        if not isinstance(before, property):
            assert list(inspect.signature(now).parameters) == list(inspect.signature(before).parameters), name


def test_events_and_states_mean_what_they_are_used_for():
    """PS3.8 tables 9-7 to 9-10."""
    states = {state for _, state in TRANSITION_TABLE}
    assert {"Sta1", "Sta13"} <= states
    used = {*acceptor._OF_THE_LOCAL_USER, *acceptor._RECEIVED_WITH_VALUES, connection.CLOSED, connection.INVALID_PDU}
    assert used <= {event for event, _ in TRANSITION_TABLE}
    assert TRANSITION_TABLE[connection.INVALID_PDU, "Sta6"] == "AA-8"
    assert TRANSITION_TABLE[connection.CLOSED, "Sta6"] == "AA-4"
    assert TRANSITION_TABLE["Evt6", "Sta2"] == "AE-6"
