"""For each series a JSON with the identifiers of its study and itself.

``ATTRIBUTES`` (comma-separated DICOM keywords) adds values of the header of the series' first file.
"""

import json
import os
import sys
from pathlib import Path

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

SKIPPED = 126


def plain(value: object) -> object:
    """A header value as JSON has it: numbers as numbers, several values as a list, else text."""
    if value is None or isinstance(value, (int, float)):
        return value if type(value) in (int, float, type(None)) else float(str(value))
    if isinstance(value, MultiValue):
        return [plain(each) for each in value]
    return str(value)


def extract(in_dir: Path, attributes: list[str]) -> dict[str, object]:
    files = sorted(path for path in in_dir.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise ValueError(f"no DICOM file in {in_dir.name}")
    ds = pydicom.dcmread(files[0], stop_before_pixels=True)
    found: dict[str, object] = {
        "study_id": str(ds.StudyInstanceUID),
        "series_uid": str(ds.SeriesInstanceUID),
    }
    return {**found, **{keyword: plain(ds.get(keyword)) for keyword in attributes}}


def main() -> int:
    attributes = [word.strip() for word in os.environ.get("ATTRIBUTES", "").split(",") if word.strip()]
    unknown = [keyword for keyword in attributes if tag_for_keyword(keyword) is None]
    if unknown:
        print(f"ATTRIBUTES: {', '.join(unknown)}: not a DICOM keyword, such as StudyDate", file=sys.stderr)
        return 1
    batch_dir = Path("/", os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"])
    done = failed = 0
    for series_dir in sorted(path for path in batch_dir.glob("*") if path.is_dir()):
        try:
            found = extract(series_dir / os.environ["OPERATOR_IN_DIR"], attributes)
        except (OSError, ValueError, AttributeError, InvalidDicomError) as exc:
            print(f"series {series_dir.name}: failed: {exc}", file=sys.stderr)
            failed += 1
            continue
        out_dir = series_dir / os.environ["OPERATOR_OUT_DIR"]
        out_dir.mkdir(parents=True, exist_ok=True)
        (out_dir / f"{series_dir.name}.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        done += 1
    print(f"{done} series extracted, {failed} failed")
    if failed:
        return 1
    return 0 if done else SKIPPED


if __name__ == "__main__":
    sys.exit(main())
