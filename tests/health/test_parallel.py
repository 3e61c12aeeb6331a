"""Calls that hang or break hold up nobody."""

import threading
import time

import pytest

from kaapana_assets.health.parallel import ParallelCalls


def test_results_come_by_name_and_in_order():
    parallel = ParallelCalls[str](lambda name, why: f"{name} lost: {why}", deadline_s=10)
    found = parallel.start({"b": lambda: "B", "a": lambda: "A"})()
    assert list(found.items()) == [("b", "B"), ("a", "A")]


def test_all_are_asked_at_once():
    together = threading.Barrier(3, timeout=10)
    parallel = ParallelCalls[bool](lambda *_: False, deadline_s=10)
    found = parallel.start({name: lambda: together.wait() >= 0 for name in "abc"})()
    assert set(found.values()) == {True}


def test_one_that_hangs_is_left_behind_and_not_asked_again_before_it_came_back():
    end = threading.Event()
    asked = []

    def hang() -> str:
        asked.append(1)
        end.wait(30)
        return "late"

    parallel = ParallelCalls[str](lambda name, why: f"{name} {why}", deadline_s=0.2)
    began = time.monotonic()
    for _ in range(2):
        found = parallel.start({"disk": hang, "other": lambda: "fine"})()
        assert found["disk"].startswith("disk no answer for 0 s")
        assert found["other"] == "fine"
    assert time.monotonic() - began < 5
    assert len(asked) == 1
    end.set()
    deadline = time.monotonic() + 10
    while parallel.start({"disk": lambda: "back"})()["disk"] != "back":
        assert time.monotonic() < deadline


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_breaks_is_told_as_its_own_failure():
    parallel = ParallelCalls[str](lambda name, why: f"{name}: {why}", deadline_s=10)
    assert parallel.start({"a": lambda: str(1 / 0)})() == {"a": "a: the check itself failed; its log says why"}
    for thread in threading.enumerate():
        if thread.name == "check a":
            thread.join()  # what it says of its end is said within this test
