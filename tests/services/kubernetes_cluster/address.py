"""Which addresses and names one of several clusters on a machine has."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

# The length of an interface's name is limited to 15 characters.
LINK_PREFIX = "kaapana-k8s"
_NUMBERS = range(100, 250)


@dataclass(frozen=True)
class Address:
    """All that depends on the number of a cluster; its networks are in 10.NUMBER.0.0/16.

    Attributes:
        number: of this cluster on this machine.
        owner: the process that ends it.
    """

    number: int
    owner: int

    @property
    def node(self) -> str:
        """Name of its node, and of the link on the machine's side."""
        return f"{LINK_PREFIX}{self.number}"

    @property
    def cgroup(self) -> str:
        """Below each hierarchy of cgroups; never the name of an earlier cluster."""
        return f"{self.node}-{self.owner}"

    @property
    def host_address(self) -> str:
        """The machine, as pods see it."""
        return f"10.{self.number}.0.1"

    @property
    def node_address(self) -> str:
        """The node, as pods and the machine see it."""
        return f"10.{self.number}.0.2"

    @property
    def api_url(self) -> str:
        """The API server."""
        return f"https://{self.node_address}:6443"

    @property
    def pod_network(self) -> str:
        """Addresses of pods."""
        return f"10.{self.number}.8.0/22"

    @property
    def service_network(self) -> str:
        """Addresses of services."""
        return f"10.{self.number}.16.0/20"

    @property
    def api_service_address(self) -> str:
        """The service ``kubernetes``: the first of the service network."""
        return f"10.{self.number}.16.1"


def free_numbers(owner: int) -> Iterator[int]:
    """Numbers whose network no route or address of this machine has, from one that depends on the process."""
    taken = list(_networks())
    start = owner % len(_NUMBERS)
    for number in (*_NUMBERS[start:], *_NUMBERS[:start]):
        own = ipaddress.ip_network(f"10.{number}.0.0/16")
        if not any(own.overlaps(other) for other in taken):
            yield number


def owner_is_gone(cgroup: str) -> bool:
    """Whether a cgroup has the name of a cluster whose owner does not live any more."""
    number, _, owner = cgroup.removeprefix(LINK_PREFIX).partition("-")
    if not cgroup.startswith(LINK_PREFIX) or not number.isdigit() or not owner.isdigit():
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return True
    return False


def _networks() -> Iterator[ipaddress.IPv4Network]:
    done = subprocess.run(
        ["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, check=True, timeout=60
    )
    for route in json.loads(done.stdout or b"[]"):
        if route["dst"] != "default":
            yield ipaddress.ip_network(route["dst"], strict=False)
