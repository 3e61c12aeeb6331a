"""dcm2nrrd beside dcm2niix, GDCM and pydicom over folders of DICOM.

    python benchmarks/dcm2nrrd_references.py FOLDER [FOLDER ...] [--csv FILE]

Finds the series of all DICOM files below the folders, converts each as the product does, and compares
what is written with three independent readings:

- pydicom: every written plane is one plane of the series, at its place and with its values after the
  modality transform; every plane of the series is written; no volume mixes kinds of images; labels are
  what the images say.
- dcm2niix: the same volumes. Its axes are turned to ours; what it resamples, and overlays, are left
  aside.
- GDCM, through ITK's series reader: the same volume for the files of each written volume.

ITK must read each NRRD as pynrrd does. Whole numbers must be equal, others to the precision of 32-bit
floats, places to 0.06 mm. A difference whose reason stands in a table of docs/dcm2nrrd.md (a key in
backquotes in the first cell) is explained. The exit code is 1 if anything is different without being
explained, or crashed.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dcm2nrrd_comparison.converter import chunks
from dcm2nrrd_comparison.series import find_series
from dcm2nrrd_comparison.verdicts import CRASHED, DIFFERENT, REFUSED, Verdict, examine, explained_in
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
PROCESS_SERIES = 16  # converted by one process, one after the other
VERDICTS = ("equal", "explained", "refused", "different", "crashed")
COLUMNS = ("verdict", "series", "where", "modality", "files", "transfer syntaxes", "dcm2nrrd", "pydicom", "dcm2niix",
           "GDCM", "differences")  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="with DICOM files at any depth")
    parser.add_argument("--csv", type=Path, help="write a line for each series into this file")
    parser.add_argument("--converter", type=Path, default=ROOT / "images" / "dcm2nrrd" / "files" / "main.py")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="Python that runs the converter")
    parser.add_argument("--explained", type=Path, default=ROOT / "docs" / "dcm2nrrd.md", help="document with reasons")
    parser.add_argument("--each-file", action="store_true", help="take every file as a series of its own")
    given = parser.parse_args(arguments)
    if missing := [str(path) for path in (*given.folders, given.converter) if not path.exists()]:
        parser.error(f"not there: {', '.join(missing)}")
    warnings.simplefilter("ignore")  # pydicom's, of odd files; what cannot be read is reported
    explained = explained_in(given.explained)
    found = find_series(given.folders, each_file=given.each_file)
    verdicts = []
    with tqdm(total=len(found), desc="comparing", unit="series") as bar:
        for chunk in chunks(found, PROCESS_SERIES):
            for verdict in examine(
                chunk, converter=given.converter.resolve(), python=given.python, explained=explained
            ):
                bar.update()
                verdicts.append(verdict)
                if verdict.verdict in {DIFFERENT, CRASHED, REFUSED}:
                    bar.write("\n".join(described(verdict, explained)), file=sys.stdout)
    if given.csv:
        write_csv(given.csv, verdicts)
    print("\n".join(summary(verdicts, explained)))
    return int(any(each.verdict in {DIFFERENT, CRASHED} for each in verdicts))


def described(verdict: Verdict, explained: set[str]) -> list[str]:
    """A series in words: what came of it, and each difference on a line of its own."""
    series = verdict.series
    said = verdict.reason or verdict.ours
    lines = [f"{verdict.verdict}: {series.where} ({len(series.files)} files, {series.uid}): {said}"]
    if verdict.verdict in {REFUSED, CRASHED}:
        given = {name: text for name, text in verdict.references.items() if text[:1].isdigit()}
        lines += [f"  {name} gives {text}" for name, text in given.items()]
    lines += [f"  {each}" + (" explained" if each.key in explained else "") for each in verdict.differences]
    return lines


def summary(verdicts: Sequence[Verdict], explained: set[str]) -> list[str]:
    """Markdown: counts of verdicts, of refusals by reason, and of explained differences by key."""
    counts = Counter(verdict.verdict for verdict in verdicts)
    lines = ["", "| verdict | series |", "|---|---|"]
    lines += [f"| {name} | {counts[name]} |" for name in VERDICTS]
    lines += [f"| refused, though a reference gives a volume | {sum(each.others_give_a_volume for each in verdicts)} |"]
    keys = Counter(key for verdict in verdicts for key in {each.key for each in verdict.differences} & explained)
    if keys:
        lines += ["", "| explained by | series |", "|---|---|"]
        lines += [f"| `{key}` | {count} |" for key, count in keys.most_common()]
    return lines


def write_csv(path: Path, verdicts: Sequence[Verdict]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for verdict in verdicts:
            series = verdict.series
            row = [verdict.verdict, series.uid, series.where, series.modality, len(series.files)]
            row += [" ".join(series.transfer_syntaxes), verdict.reason or verdict.ours]
            row += [verdict.references.get(name, "") for name in ("pydicom", "dcm2niix", "GDCM")]
            rows.writerow([*row, "; ".join(str(each) for each in verdict.differences)])


if __name__ == "__main__":
    sys.exit(main())
