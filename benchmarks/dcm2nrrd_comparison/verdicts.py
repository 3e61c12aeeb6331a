"""One series through dcm2nrrd and its references, and the verdict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nrrd
import numpy as np

from dcm2nrrd_comparison.by_plane import Matched, match
from dcm2nrrd_comparison.comparison import Difference, compare
from dcm2nrrd_comparison.converter import Conversion, convert
from dcm2nrrd_comparison.planes import Plane, read_planes
from dcm2nrrd_comparison.reasons import Facts
from dcm2nrrd_comparison.references import Reference, by_dcm2niix, by_gdcm, by_itk
from dcm2nrrd_comparison.series import Series
from dcm2nrrd_comparison.volumes import Volume, read_nrrd

EQUAL, EXPLAINED, REFUSED, DIFFERENT, CRASHED = "equal", "explained", "refused", "different", "crashed"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found of one series.

    Attributes:
        verdict: ``equal``, ``explained`` (different only for reasons that are documented),
            ``refused``, ``different`` or ``crashed``.
        ours: sizes of what was written.
        reason: of a refusal or a crash.
        references: what each reference gives, by its name.
        differences: all that were found, explained ones too.
    """

    series: Series
    verdict: str
    ours: str
    reason: str
    references: dict[str, str]
    differences: list[Difference]

    @property
    def others_give_a_volume(self) -> bool:
        return self.verdict == REFUSED and any(re.match(r"\d+x", said) for said in self.references.values())


def explained_in(document: Path) -> set[str]:
    """The keys of the differences that a document explains: first cells, in backquotes, of its tables."""
    if not document.is_file():
        return set()
    return set(re.findall(r"^\| *`([a-z0-9-]+)` *\|", document.read_text(), re.MULTILINE))


def examine(series: Sequence[Series], *, converter: Path, python: Path, explained: set[str]) -> Iterator[Verdict]:
    """Converts series in one process and compares what is written with all references."""
    with TemporaryDirectory(prefix="dcm2nrrd-") as folder:
        conversions = convert(series, Path(folder), converter=converter, python=python)
        for each, conversion in zip(series, conversions, strict=True):
            yield _verdict(each, conversion, explained)


def _verdict(series: Series, conversion: Conversion, explained: set[str]) -> Verdict:
    niix = by_dcm2niix(conversion.inputs, philips=series.manufacturer.upper().startswith("PHILIPS"))
    if conversion.outcome != "written":
        return _without_output(series, conversion, niix)
    try:
        volumes = [volume for file in conversion.files for volume in read_nrrd(file, _name(series, file))]
    except (ValueError, KeyError, nrrd.NRRDError) as exc:
        reason = f"its NRRD cannot be read: {exc}"
        return Verdict(series=series, verdict=CRASHED, ours="", reason=reason, references={}, differences=[])
    planes, failed = read_planes(series.files)
    return _compared(series, conversion, volumes, planes, failed, niix, explained)


def _name(series: Series, file: Path) -> str:
    return file.name.replace(series.uid, "SERIES")


def _without_output(series: Series, conversion: Conversion, niix: Reference) -> Verdict:
    gdcm = by_gdcm(list(series.files.values()))
    return Verdict(
        series=series,
        verdict=REFUSED if conversion.outcome == "refused" else CRASHED,
        ours="",
        reason=conversion.reason,
        references={"dcm2niix": _given(niix), "GDCM": _given(gdcm)},
        differences=[],
    )


def _compared(
    series: Series,
    conversion: Conversion,
    volumes: list[Volume],
    planes: list[Plane],
    failed: list[str],
    niix: Reference,
    explained: set[str],
) -> Verdict:
    said = "\n".join(conversion.lines)
    named = {file for sop, file in series.files.items() if f"{sop}.dcm" in said or file.name in said}
    matched = match(volumes, planes, named)
    if not planes:  # pydicom cannot read any of it
        matched = Matched(planes=[[] for _ in volumes], differences=[])
    facts = _facts(volumes, matched, planes)
    differences = [*matched.differences, *_as_itk_reads(series, conversion, volumes)]
    references = {"pydicom": f"{len(planes)} planes" + (f", {len(failed)} unreadable" if failed else "")}
    references["dcm2niix"] = _given(niix)
    if niix.volumes:
        differences += compare(volumes, niix.volumes, reference="dcm2niix", facts=facts)
    gdcm, reason = _by_gdcm(volumes, matched, planes)
    references["GDCM"] = _given(Reference(volumes=[theirs for _, theirs in gdcm], reason=reason))
    for ours, theirs in gdcm:
        differences += compare([ours], [theirs], reference="GDCM", facts=facts)
    unexplained = [each for each in differences if each.key not in explained]
    return Verdict(
        series=series,
        verdict=DIFFERENT if unexplained else EXPLAINED if differences else EQUAL,
        ours=_sizes(volumes),
        reason="",
        references=references,
        differences=differences,
    )


def _facts(volumes: list[Volume], matched: Matched, planes: Sequence[Plane]) -> Facts:
    stored, lowest = {}, {}
    for volume, chosen in zip(volumes, matched.planes, strict=True):
        found = [plane for plane in chosen if plane]
        if len(found) == volume.shape[2]:
            stored[volume.name] = np.stack([plane.stored.swapaxes(0, 1) for plane in found], axis=2)
            lowest[volume.name] = np.stack([plane.lowest.swapaxes(0, 1) for plane in found], axis=2)
    bits = {plane.bits_stored for plane in planes}
    return Facts(
        lossy=any(plane.lossy for plane in planes),
        dose=any(plane.dose for plane in planes),
        photometric=frozenset(plane.photometric for plane in planes),
        bits_stored=bits.pop() if len(bits) == 1 else 0,
        stored=stored,
        lowest=lowest,
    )


def _as_itk_reads(series: Series, conversion: Conversion, volumes: list[Volume]) -> list[Difference]:
    """ITK must see the same volume in each file of three axes as pynrrd does."""
    found = []
    for file in conversion.files:
        ours = [volume for volume in volumes if volume.name == _name(series, file)]
        if not ours:
            continue  # a fourth axis: ITK's vectors
        theirs = by_itk(file)
        if not theirs.volumes:
            found.append(Difference(reference="ITK", what="file", text=f"cannot read {file.name}: {theirs.reason}"))
            continue
        found += compare(ours, theirs.volumes, reference="ITK", facts=Facts())
    return found


def _by_gdcm(
    volumes: list[Volume], matched: Matched, planes: Sequence[Plane]
) -> tuple[list[tuple[Volume, Volume]], str]:
    """GDCM's reading of the files that became each volume, beside ours; and why there is none."""
    frames = {plane.file: sum(1 for each in planes if each.file == plane.file) for plane in planes}
    pairs, reasons = [], []
    for ours, chosen in zip(volumes, matched.planes, strict=True):
        files = list(dict.fromkeys(plane.file for plane in chosen if plane))
        whole = [frames[file] for file in files]
        if not files or sum(whole) != ours.shape[2] or any(plane.tile for plane in chosen if plane):
            reasons.append("cannot take frames or tiles of an object apart")
            continue
        theirs = by_gdcm(files)
        if len(theirs.volumes) > 1:
            reasons.append("takes each object for a volume of its own")
            continue
        if theirs.reason:
            reasons.append(theirs.reason)
        pairs += [(ours, each) for each in theirs.volumes]
    return pairs, reasons[0] if reasons else ""


def _given(reference: Reference) -> str:
    sizes = _sizes(reference.volumes)
    return f"{sizes} ({reference.reason})" if sizes and reference.reason else sizes or reference.reason or "nothing"


def _sizes(volumes: Sequence[Volume]) -> str:
    counts: dict[str, int] = {}
    for volume in volumes:
        counts[volume.size] = counts.get(volume.size, 0) + 1
    return ", ".join(size if count == 1 else f"{size} x {count}" for size, count in counts.items())
