"""Stages inputs into the run directory, from the PACS and the shelf. Outputs of the same run are there already.

``views`` then shows an operator its part of the run directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kaapana_assets.errors import NotFound
from kaapana_assets.execution.run_context import OperatorRun, RunContext
from kaapana_assets.stores.files.run_directory import RunDirectory
from kaapana_assets.untrusted import opened
from kaapana_assets.workflows.fingerprints import Inputs
from kaapana_assets.workflows.operators import Operator


def stage_series(run: OperatorRun, directory: RunDirectory, uid: str, by_folder: Mapping[str, str]) -> None:
    """Stage the inputs of one series that the directory does not hold yet.

    Args:
        run: the operator in its run.
        directory: the run directory; in single mode, the directory of the series.
        uid: SeriesInstanceUID.
        by_folder: the fingerprint of each folder that the operator reads.

    Raises:
        NotFound: an input no longer exists, or its version has changed.
        UnsafePath: a link, or something else than a folder, is in the input's path.
    """
    sources = run.workflow.input_folders(run.operator)
    for name, fingerprint in by_folder.items():
        source = sources[name]
        with _staged(directory, *directory.names_of(uid, name)) as staged:
            if staged is not None and source is not None:
                _fetch(run, source, uid, staged, fingerprint)
            elif staged is not None:
                # Operators never see these files directly; see ``views``.
                stored = run.stores.pacs.retrieve(uid, staged, writable_copy=False)
                if stored.digest != run.request.series[uid]:
                    raise NotFound(
                        f"series {uid} changed in the PACS while this run worked on it: send the cohort again"
                    )


def stage_pooled(run: OperatorRun, inputs: Inputs) -> None:
    """Stage the pooled inputs of an operator that the run directory does not hold yet."""
    cohort = run.request.cohort
    for name, source in run.workflow.input_folders(run.operator).items():
        if source is not None and source.level == "cohort":
            with _staged(run.directory, name) as staged:
                if staged is not None:
                    _fetch(run, source, cohort, staged, inputs[name][cohort])


@contextmanager
def _staged(directory: RunDirectory, *place: str) -> Iterator[Path | None]:
    """Yield a temporary folder to fill, then move it into the directory; yield None if the folder exists there.

    Raises:
        UnsafePath: something else than a folder is in the path.
    """
    with directory.opened(*place[:-1], make=True) as above:
        if above.has_folder(place[-1]):
            yield None
            return
        with directory.staging() as staged:
            yield staged
            with opened(staged.parent) as aside:
                aside.rename(staged.name, above, place[-1])


def _fetch(run: RunContext, source: Operator, partition: str, into: Path, fingerprint: str) -> None:
    manifest = run.stores.shelf.fetch(run.workflow.name, source.full_name, partition, into)
    if manifest.fingerprint != fingerprint:
        raise NotFound(
            f"the output of {source.full_name} for {partition} was replaced by another run, {manifest.run}, "
            "while this one worked: run it again"
        )
