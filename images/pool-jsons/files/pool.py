"""All JSON files of the batch in one list, ``pooled.json``, in the order of series and file name."""

import json
import os
import sys
from pathlib import Path

SKIPPED = 126


def record(series: str, content: object) -> dict[str, object]:
    """One file's content with its series; what is no object goes under ``content``."""
    return {"series_uid": series, **(content if isinstance(content, dict) else {"content": content})}


def main() -> int:
    workflow_dir = Path("/", os.environ["WORKFLOW_DIR"])
    records, failed, without = [], 0, 0
    for series_dir in sorted(
        path for path in workflow_dir.joinpath(os.environ["BATCH_NAME"]).glob("*") if path.is_dir()
    ):
        files = sorted((series_dir / os.environ["OPERATOR_IN_DIR"]).glob("*.json"))
        without += not files
        for file in files:
            try:
                records.append(record(series_dir.name, json.loads(file.read_text(encoding="utf-8"))))
            except ValueError as exc:
                print(f"series {series_dir.name}: {file.name} is no JSON: {exc}", file=sys.stderr)
                failed += 1
    print(f"{len(records)} JSON files pooled, {without} series without any, {failed} unreadable")
    if failed:
        return 1
    if not records:
        return SKIPPED
    out_dir = workflow_dir / os.environ["OPERATOR_OUT_DIR"]
    out_dir.mkdir(parents=True, exist_ok=True)
    text = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    (out_dir / "pooled.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
