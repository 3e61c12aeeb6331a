"""Parallel calls for series, or chunks of series, in a run that may be cancelled."""

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
    """Call a function for each item, up to ``at_once`` in parallel, and yield the results as they complete.

    After an error no further call begins. The running calls complete and their results are yielded before the
    error is raised. If the run is cancelled, the running calls end their containers.

    Raises:
        KaapanaAssetsError: the first error of a call.
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
            # Also on interruption: the other threads must end their containers before the pool joins them.
            run.cancelled.set()
            raise
    if error is not None:
        raise error


def in_order(call: Callable[[_Given], _Result], each: Iterable[_Given], *, at_once: int) -> list[_Result]:
    """Call a function for each item, up to ``at_once`` in parallel, and return the results in the order of the items.

    After the first error, no further call begins, and it is raised.
    """
    if at_once <= 1:
        return [call(given) for given in each]
    with ThreadPoolExecutor(at_once, thread_name_prefix="retrieval") as pool:
        pending = [pool.submit(call, given) for given in each]
        try:
            return [submitted.result() for submitted in pending]
        except BaseException:  # also when the run is cancelled
            pool.shutdown(wait=False, cancel_futures=True)
            raise
