"""Progress bars of long operations, shown only on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from typing_extensions import Never

from kaapana_assets.operations.progress import Progress


@contextmanager
def bars(unit: str) -> Iterator[Progress]:
    """Yield a callback that shows a progress bar for each stage.

    Args:
        unit: name of an item, such as ``file``.
    """
    from tqdm import tqdm

    with ExitStack() as stack:
        shown: dict[str, tqdm[Never]] = {}

        def progress(stage: str, *, done: int, total: int) -> None:
            if stage not in shown:
                shown[stage] = stack.enter_context(tqdm(total=total, desc=stage, unit=unit, disable=None))
            shown[stage].update(done - shown[stage].n)

        yield progress
