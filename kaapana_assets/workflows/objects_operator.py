"""The operator that puts what another one made into a bucket of the object store."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from pathlib import Path

from kaapana_assets.errors import NotFound, OutputMissing
from kaapana_assets.stores.objects.protocol import ObjectStore
from kaapana_assets.untrusted import opened
from kaapana_assets.workflows.operators import Level, Operator, OperatorContext, PythonOperator

_LISTING = "objects.json"


def put_objects(
    *,
    bucket: str,
    input_operator: Operator | str | None,
    name: str = "put-objects",
    patterns: tuple[str, ...] = ("*",),
    level: Level = "series",
    parallel_id: str | None = None,
    parameters: tuple[str, ...] = (),
) -> PythonOperator:
    """An operator that puts files into a bucket and lists them, with their digests, as its output.

    Objects of a series are named ``<SeriesInstanceUID>/<file>``, those of a pooled output
    ``<cohort>/<file>``. An object of the same name is replaced. What is no longer in the bucket (it was
    removed or changed, the store is another one) is put again by the next run.

    Args:
        bucket: name of the bucket; made when it is not there.
        input_operator: whose output is put; None puts the DICOM files.
        name: of the operator.
        patterns: globs on the file's path below the input's folder.
        level: of the operator; as the input's.
        parallel_id: tells several of these apart.
        parameters: names of workflow parameters that replace what is given here: ``patterns``
            (comma-separated globs), ``bucket``.
    """
    return PythonOperator(
        name=name,
        function=_put_objects,
        input_operator=input_operator,
        level=level,
        parallel_id=parallel_id,
        output_patterns=(_LISTING,),
        parameters=parameters,
        settings={"bucket": bucket, "patterns": ",".join(patterns), "level": level, "parameters": ",".join(parameters)},
        is_there=_are_there,
    )


def _put_objects(context: OperatorContext) -> None:
    own = {name: str(context.parameters[name]) for name in context.settings["parameters"].split(",") if name}
    bucket = own.get("bucket") or context.settings["bucket"]
    patterns = [pattern.strip() for pattern in (own.get("patterns") or context.settings["patterns"]).split(",")]
    if context.settings["level"] == "cohort":
        _put(context, bucket, patterns, context.operator_in_dir, prefix=context.cohort, output=context.pooled_output)
        return
    for uid in context.series:
        place = ("batch", uid, context.operator_in_dir)
        _put(context, bucket, patterns, *place, prefix=uid, output=context.output_of(uid))


def _put(context: OperatorContext, bucket: str, patterns: list[str], *source: str, prefix: str, output: Path) -> None:
    stored = []
    with opened(context.directory, *source) as top:
        for place, folder, files in top.walk():
            for found in files:
                path = f"{place}/{found.name}" if place else found.name
                if any(fnmatch(path, pattern) for pattern in patterns):
                    file = folder.open_file(found.name, found.status)
                    stored.append(context.objects.put_file(bucket, f"{prefix}/{path}", file))
    stored.sort(key=lambda item: item.name.split("/"))
    if not stored:
        raise OutputMissing(f"no file of {source[-1]} of {prefix} fits {', '.join(patterns)}: nothing to put")
    listing = [
        {"bucket": item.bucket, "name": item.name, "size_bytes": item.size_bytes, "digest": item.digest}
        for item in stored
    ]
    (output / _LISTING).write_text(json.dumps(listing, indent=1))


def _are_there(objects: ObjectStore, output: Path) -> bool:
    try:
        return all(_is_there(objects, wanted) for wanted in json.loads((output / _LISTING).read_bytes()))
    except (ValueError, TypeError, KeyError):  # a listing that somebody changed
        return False


def _is_there(objects: ObjectStore, wanted: dict[str, str]) -> bool:
    try:
        found = {item.name: item.digest for item in objects.list(wanted["bucket"], wanted["name"])}
    except NotFound:
        return False
    return found.get(wanted["name"]) == wanted["digest"]
