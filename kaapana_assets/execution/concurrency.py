"""Doing the same for several series, or chunks of them, at once, in a run that may be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

from kaapana_assets.errors import KaapanaAssetsError
from kaapana_assets.execution.run_context import RunContext

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def as_they_end(
    run: RunContext, call: Callable[[_Given], _Result], each: Iterable[_Given], *, at_once: int
) -> Iterator[_Result]:
    """What the call gives for each, some at once, as they end.

    After an error no further one begins; those under way end by themselves and count, before it is
    raised. A cancelled run ends their containers.
    """
    if at_once <= 1:
        for given in each:
            if run.cancelled.is_set():
                return
            yield call(given)
        return
    error: KaapanaAssetsError | None = None
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        try:
            pending = [pool.submit(call, given) for given in each]
            for ended in as_completed(pending):
                if ended.cancelled():
                    continue
                try:
                    result = ended.result()
                except KaapanaAssetsError as exc:
                    error = error or exc
                    for other in pending:
                        other.cancel()
                else:
                    yield result
        except BaseException:
            # Also when the run is cancelled: the other threads must end their containers before the pool joins them.
            run.cancelled.set()
            raise
    if error is not None:
        raise error
