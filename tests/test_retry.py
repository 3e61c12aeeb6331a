"""The one policy of retry: how long, how often, and that clients do not come back together."""

from __future__ import annotations

import threading
import time

import pytest

from kaapana_assets.retry import Patience, repeating


class Away(Exception):
    """What may pass."""


class Refused(Exception):
    """What does not."""


class Server:
    """Fails so often, and then answers."""

    def __init__(self, failures: float = float("inf"), error: type[Exception] = Away) -> None:
        self.calls = 0
        self._failures, self._error = failures, error

    def ask(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error(self.calls)
        return "answer"


def is_away(exc: BaseException) -> bool:
    return isinstance(exc, Away)


def quick(seconds: float = 60.0, **given: float) -> Patience:
    return Patience(seconds, first_s=0.001, longest_s=0.001, **given)


def test_a_call_is_repeated_until_it_answers():
    server, told = Server(3), []
    again = repeating(quick(), is_away, before_pause=lambda exc, pause_s: told.append((exc.args[0], pause_s > 0)))
    assert again(server.ask) == "answer"
    assert told == [(1, True), (2, True), (3, True)]


def test_an_error_that_does_not_pass_is_raised_at_once():
    server = Server(error=Refused)
    with pytest.raises(Refused):
        repeating(quick(), is_away)(server.ask)
    assert server.calls == 1


def test_the_last_error_is_raised_after_all_attempts():
    server = Server()
    with pytest.raises(Away, match="4"):
        repeating(quick(attempts=4), is_away)(server.ask)
    assert server.calls == 4


def test_no_patience_is_one_attempt():
    server = Server()
    with pytest.raises(Away):
        repeating(quick(0.0), is_away)(server.ask)
    assert server.calls == 1


def test_the_last_attempt_is_at_the_end_of_patience_not_before():
    server = Server()
    began = time.monotonic()
    with pytest.raises(Away):
        repeating(Patience(0.3, first_s=0.2, longest_s=60.0), is_away)(server.ask)
    assert time.monotonic() - began >= 0.3
    assert server.calls >= 3


def test_patience_counts_from_the_first_failure():
    """A call of hours that breaks at its end has all of it."""
    calls = []

    def long_call() -> str:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.1)
            raise Away
        return "answer"

    assert repeating(quick(0.05), is_away)(long_call) == "answer"


def test_progress_gives_new_patience():
    patience, server = quick(attempts=3), Server(5)

    def ask() -> str:
        if server.calls in (2, 4):
            patience.renew()
        return server.ask()

    assert repeating(patience, is_away)(ask) == "answer"


def test_pauses_double_up_to_a_limit_and_no_two_clients_keep_step():
    def pauses() -> list[float]:
        patience = Patience(first_s=1.0, longest_s=8.0)
        return [patience.next_pause_s() for _ in range(100)]

    one, other = pauses(), pauses()
    for index, wanted in enumerate((1.0, 2.0, 4.0, 8.0, 8.0)):
        assert 0.75 * wanted <= one[index] <= 1.25 * wanted
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert max(one) <= 10.0


def test_cancelling_ends_a_pause():
    cancelled, server = threading.Event(), Server()
    again = repeating(
        Patience(first_s=600.0, longest_s=600.0), is_away, cancelled=cancelled, before_pause=lambda *_: cancelled.set()
    )
    with pytest.raises(Away):
        again(server.ask)
    assert server.calls == 2  # after its pause, which took no time
