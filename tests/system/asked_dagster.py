"""What only tests ask Dagster: backfills, staleness and materializations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kaapana_assets.graphql import DagsterClient
from kaapana_assets.graphql.client import AssetKey, _key, _tag_list
from kaapana_assets.graphql.documents import _PYTHON_ERROR

LAUNCH_BACKFILL = (
    """
mutation Backfill($params: LaunchBackfillParams!) {
  result: launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PartitionKeysNotFoundError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on UnauthorizedError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

BACKFILL = (
    """
query Backfill($id: String!) {
  result: partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill { status runs(limit: 1000) { runId status } error { ...PythonErrorParts } }
    ... on BackfillNotFoundError { message }
    ... on PythonError { ...PythonErrorParts }
  }
}
"""
    + _PYTHON_ERROR
)

STALENESS = """
query Staleness($key: AssetKeyInput!, $partitions: [String!]) {
  result: assetNodeOrError(assetKey: $key) {
    __typename
    ... on AssetNode { staleStatusByPartition(partitions: $partitions) }
    ... on AssetNotFoundError { message }
  }
}
"""

LATEST_MATERIALIZATION = """
query Latest($key: AssetKeyInput!, $partitions: [String!]) {
  result: assetNodeOrError(assetKey: $key) {
    __typename
    ... on AssetNode {
      assetMaterializations(partitions: $partitions, limit: 1) {
        runId timestamp partition tags { key value }
        metadataEntries {
          __typename label
          ... on TextMetadataEntry { text }
          ... on PathMetadataEntry { path }
          ... on UrlMetadataEntry { url }
          ... on NotebookMetadataEntry { path }
          ... on JsonMetadataEntry { jsonString }
          ... on MarkdownMetadataEntry { mdStr }
          ... on IntMetadataEntry { intRepr }
          ... on FloatMetadataEntry { floatValue }
          ... on BoolMetadataEntry { boolValue }
          ... on TimestampMetadataEntry { timestamp }
        }
      }
    }
    ... on AssetNotFoundError { message }
  }
}
"""

ASSET_KEYS = """
query AssetKeys($group: AssetGroupSelector) { result: assetNodes(group: $group) { assetKey { path } } }
"""


@dataclass(frozen=True)
class Materialization:
    """The newest materialization of an asset or of one partition of it."""

    run_id: str
    partition: str | None
    tags: Mapping[str, str]
    metadata: Mapping[str, Any]

    @property
    def data_version(self) -> str | None:
        """Dagster's data version, as recorded with the materialization."""
        return self.tags.get("dagster/data_version")


class AskedDagster(DagsterClient):
    """The package's own client, with more questions."""

    def launch_backfill(
        self, assets: Sequence[AssetKey], partitions: Sequence[str], *, tags: Mapping[str, str] | None = None
    ) -> str:
        """The id of a new backfill of ``assets`` over ``partitions``."""
        params = {
            "assetSelection": [_key(asset) for asset in assets],
            "partitionNames": list(partitions),
            "tags": _tag_list(tags or {}),
        }
        return str(self._ask(LAUNCH_BACKFILL, {"params": params})["backfillId"])

    def backfill_status(self, backfill_id: str) -> tuple[str, dict[str, str]]:
        """Status of a backfill (``REQUESTED``, ``COMPLETED_SUCCESS`` …) and of its first 1,000 runs by run id."""
        found = self._ask(BACKFILL, {"id": backfill_id})
        return found["status"], {run["runId"]: run["status"] for run in found["runs"]}

    def run_status(self, run_id: str) -> str:
        """Only the status of the run, see :attr:`Run.status`."""
        return self.run(run_id).status

    def asset_staleness(self, asset: AssetKey, partitions: Sequence[str]) -> dict[str, str]:
        """``FRESH``, ``STALE`` or ``MISSING`` for each of ``partitions``."""
        found = self._ask(STALENESS, {"key": _key(asset), "partitions": list(partitions)})
        return dict(zip(partitions, found["staleStatusByPartition"], strict=True))

    def latest_materialization(self, asset: AssetKey, partition: str | None = None) -> Materialization | None:
        """The newest materialization with its metadata, or None if there was never one."""
        wanted = None if partition is None else [partition]
        found = self._ask(LATEST_MATERIALIZATION, {"key": _key(asset), "partitions": wanted})
        events = found["assetMaterializations"]
        if not events:
            return None
        event = events[0]
        return Materialization(
            run_id=event["runId"],
            partition=event["partition"],
            tags={tag["key"]: tag["value"] for tag in event["tags"]},
            metadata={entry["label"]: metadata_value(entry) for entry in event["metadataEntries"]},
        )

    def asset_keys(self) -> list[tuple[str, ...]]:
        """The keys of all assets that the code location defines."""
        nodes = self._ask(ASSET_KEYS, {})
        return [tuple(node["assetKey"]["path"]) for node in nodes]


_METADATA_FIELDS = ("text", "path", "url", "mdStr", "floatValue", "boolValue", "timestamp")


def metadata_value(entry: Mapping[str, Any]) -> object:
    """The value of one metadata entry in its natural type."""
    if "jsonString" in entry:
        return json.loads(entry["jsonString"])
    if "intRepr" in entry:
        return int(entry["intRepr"])
    return next((entry[field] for field in _METADATA_FIELDS if field in entry), None)
