"""Progress bars of long work, where somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from typing_extensions import Never

from kaapana_assets.operations.progress import Progress


@contextmanager
def bars(unit: str) -> Iterator[Progress]:
    """What shows a bar for each stage that it is told of.

    Args:
        unit: what a piece is, such as ``file``.
    """
    from tqdm import tqdm

    with ExitStack() as stack:
        shown: dict[str, tqdm[Never]] = {}

        def progress(stage: str, *, done: int, total: int) -> None:
            if stage not in shown:
                shown[stage] = stack.enter_context(tqdm(total=total, desc=stage, unit=unit, disable=None))
            shown[stage].update(done - shown[stage].n)

        yield progress
