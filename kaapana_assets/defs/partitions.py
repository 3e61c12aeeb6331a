"""The two dynamic partitions definitions, and the keys of the assets that other assets depend on."""

import warnings

import dagster as dg

# Dagster's version is pinned and tests cover the beta features used here, so its warnings at each start are of no use
# to users.
for _name in ("backfill_policy", "partitions_def", "data_version"):
    warnings.filterwarnings("ignore", message=f".*{_name}", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", message=f".*{_name}", category=dg.PreviewWarning)

SERIES = dg.DynamicPartitionsDefinition(name="series")
"""One partition per DICOM series; the key is its SeriesInstanceUID."""

COHORTS = dg.DynamicPartitionsDefinition(name="cohorts")
"""One partition per cohort; the key is the cohort's name."""

DICOM_SERIES = dg.AssetKey("dicom_series")
"""The series in the PACS."""

SERIES_METADATA = dg.AssetKey("series_metadata")
"""The document of the series in the metadata index."""

COHORT = dg.AssetKey("cohort")
"""A cohort: a frozen selection of series."""


def contiguous_ranges(wanted: set[str], ordered: list[str]) -> list[tuple[str, str]]:
    """Return the inclusive (first, last) ranges of ``ordered`` that hold exactly the wanted keys.

    Args:
        wanted: partition keys; those that are not in ``ordered`` are ignored.
        ordered: all keys of the partitions definition, in its order.
    """
    ranges: list[tuple[str, str]] = []
    first = last = None
    for key in ordered:
        if key in wanted:
            first, last = first or key, key
        elif first is not None and last is not None:
            ranges.append((first, last))
            first = last = None
    if first is not None and last is not None:
        ranges.append((first, last))
    return ranges


def range_tags(first: str, last: str) -> dict[str, str]:
    """Return the run tags that make one run materialize all partitions from first to last."""
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
