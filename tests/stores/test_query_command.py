"""`kaapana-assets query` as a user calls it."""

import json
import os
import subprocess
import sys

import pytest

from kaapana_assets.stores.sqlite_index import SqliteIndex

DOCUMENTS = [
    {"SeriesInstanceUID": "1.1", "Modality": "CT", "SeriesDescription": "head\x1b[31m", "StudyDate": "2020-01-02",
     "InstanceCount": 28, "PatientAge": 45.0},
    {"SeriesInstanceUID": "1.2", "Modality": "MR", "StudyDate": "2021-01-02", "PatientAge": 61.0},
    {"SeriesInstanceUID": "1.3", "Modality": "MR", "StudyDate": "2019-01-02"},
]  # fmt: skip


@pytest.fixture
def run(tmp_path):
    index = SqliteIndex(tmp_path / "index.sqlite")
    index.put(DOCUMENTS)
    index.close()

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", "from kaapana_assets.cli import main; main()", "query", *arguments],
            env=os.environ | {"KAAPANA_HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_table_total_and_facets_are_printed(run, tmp_path):
    done = run(
        "*", "--facet", "Modality", "--facet", "StudyDate:year", "--facet", "PatientAge:10", "--sort", "-StudyDate"
    )
    assert (done.returncode, done.stderr) == (0, f"home {tmp_path}\n")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["SeriesInstanceUID", "Modality", "SeriesDescription", "StudyDate", "InstanceCount"]
    assert [line.split()[0] for line in lines[1:4]] == ["1.2", "1.1", "1.3"]
    assert "head?[31m" in done.stdout
    assert lines[4] == "3 series"
    assert [line.split() for line in lines[5:] if line] == [
        ["Modality"], ["2", "MR"], ["1", "CT"],
        ["StudyDate:year"], ["1", "2019"], ["1", "2020"], ["1", "2021"],
        ["PatientAge:10"], ["1", "40.0"], ["1", "60.0"],
    ]  # fmt: skip


def test_limit_shows_fewer_and_says_so(run):
    assert run("Modality:MR", "--limit", "1").stdout.splitlines()[-1] == "2 series, 1 shown"
    assert run("--limit", "0").stdout == "3 series, 0 shown\n"


def test_json_holds_whole_documents(run):
    answer = json.loads(run("PatientAge:[40 TO 60]", "--json", "--facet", "Modality").stdout)
    assert answer == {"total": 1, "documents": DOCUMENTS[:1], "facets": {"Modality": [{"key": "CT", "count": 1}]}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Modality:"], "^"),
        (["*", "--facet", "Rows:many"], "year, month or day"),
        (["*", "--facet", "Rows:0"], "above zero"),
    ],
    ids=["query", "facet-step", "facet-zero"],
)
def test_mistake_ends_with_a_message_and_code_2(run, arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
