"""A template for operators in Python: shows what an operator sees and writes a listing for each series."""

import json
import os
import sys
from pathlib import Path

CONTRACT = (
    "WORKFLOW_DIR",
    "BATCH_NAME",
    "OPERATOR_IN_DIR",
    "OPERATOR_OUT_DIR",
    "BATCHES_INPUT_DIR",
    "RUN_ID",
    "DAG_ID",
    "TASK_ID",
)
SKIPPED = 126


def process(in_dir: Path, out_dir: Path) -> int:
    """The processing goes here. This one lists size and name of each file."""
    files = sorted(path for path in in_dir.rglob("*") if path.is_file())
    listing = [{"name": path.relative_to(in_dir).as_posix(), "size_bytes": path.stat().st_size} for path in files]
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "listing.json").write_text(json.dumps(listing, indent=2) + "\n")
    return len(files)


def main() -> int:
    print("What the platform tells an operator:")
    for name in CONTRACT:
        print(f"  {name}={os.environ.get(name, '')}")
    # Early platforms give WORKFLOW_DIR relative to /, today's absolute: joining serves both.
    batch_dir = Path("/", os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"])
    found = 0
    for series_dir in sorted(path for path in batch_dir.glob("*") if path.is_dir()):
        in_dir = series_dir / os.environ["OPERATOR_IN_DIR"]
        if not in_dir.is_dir():
            print(f"series {series_dir.name}: has no folder {in_dir.name}, nothing to list", file=sys.stderr)
            continue
        count = process(in_dir, series_dir / os.environ["OPERATOR_OUT_DIR"])
        print(f"series {series_dir.name}: {count} files in {in_dir.name}")
        found += 1
    if not found:
        print(f"no series to work on in {batch_dir}")
        return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
