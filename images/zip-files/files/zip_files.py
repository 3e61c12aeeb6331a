"""Chosen files of the whole batch: in one zip, the same bytes for the same files, or as plain files.

``PATTERNS``: comma-separated globs, matched against a file's name and its path below the input
folder; ``*`` if not given. ``ZIP_NAME``: the name of the zip, ``files.zip`` if not given. ``ZIP``: ``false`` writes
the files as they are, as ``<series>/<path>``.
"""

import fnmatch
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

EARLIEST = (1980, 1, 1, 0, 0, 0)  # a zip cannot hold an earlier time


def chosen(workflow_dir: Path, patterns: list[str]) -> Iterator[tuple[str, Path]]:
    """Pairs of the name in the zip, ``<series>/<path>``, and the file."""
    for series_dir in sorted(
        path for path in workflow_dir.joinpath(os.environ["BATCH_NAME"]).glob("*") if path.is_dir()
    ):
        in_dir = series_dir / os.environ["OPERATOR_IN_DIR"]
        for file in sorted(in_dir.rglob("*")):
            name = file.relative_to(in_dir).as_posix()
            wanted = any(fnmatch.fnmatchcase(text, pattern) for text in (file.name, name) for pattern in patterns)
            if wanted and file.is_file() and not file.is_symlink():
                yield f"{series_dir.name}/{name}", file


def write_plain(files: list[tuple[str, Path]], out_dir: Path) -> None:
    for inside, file in files:
        target = out_dir / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def write_zip(files: list[tuple[str, Path]], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for inside, file in files:
            entry = zipfile.ZipInfo(inside, EARLIEST)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.file_size = file.stat().st_size  # tells zipfile when it needs the large format
            with file.open("rb") as source, target.open(entry, "w") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)


def main() -> int:
    patterns = [word.strip() for word in os.environ.get("PATTERNS", "").split(",") if word.strip()] or ["*"]
    name = os.environ.get("ZIP_NAME", "") or "files.zip"
    if name != Path(name).name:
        print(f"ZIP_NAME={name} is not a plain file name", file=sys.stderr)
        return 1
    workflow_dir = Path("/", os.environ["WORKFLOW_DIR"])
    files = list(chosen(workflow_dir, patterns))
    if not files:
        print(f"no file in {os.environ['OPERATOR_IN_DIR']} of any series matches PATTERNS={','.join(patterns)}")
        return 1
    out_dir = workflow_dir / os.environ["OPERATOR_OUT_DIR"]
    out_dir.mkdir(parents=True, exist_ok=True)
    if os.environ.get("ZIP", "true").lower() == "false":
        write_plain(files, out_dir)
        print(f"{len(files)} files")
    else:
        write_zip(files, out_dir / name)
        print(f"{len(files)} files in {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
