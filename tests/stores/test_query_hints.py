"""A query that finds nothing because of a field that no series has is told so."""

import pytest

from kaapana_assets.stores.query import parse, unknown_fields
from kaapana_assets.stores.sqlite_index import SqliteIndex


@pytest.mark.parametrize(
    ("text", "hints"),
    [
        ("modality:CT", ["no series has modality; did you mean Modality?"]),
        (
            "Modalty:CT AND NOT Zzyzx:1",
            ["no series has Modalty; did you mean Modality?", "no series has Zzyzx and DICOM knows no such keyword"],
        ),
        ("EchoTime:>=1", ["no series has EchoTime"]),
        ("Modality:MR", []),
        ("words", []),
    ],
    ids=["letter case", "typing error", "real but absent", "known", "no field"],
)
def test_fields_that_no_series_has_are_named(tmp_path, text: str, hints: list[str]) -> None:
    index = SqliteIndex(tmp_path / "index.sqlite")
    index.put([{"SeriesInstanceUID": "1.2", "Modality": "CT"}])
    assert unknown_fields(parse(text), index.count) == hints
    index.close()
