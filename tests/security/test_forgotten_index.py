"""What the SQLite index forgets is in none of its files any more, and other processes go on with it."""

import sqlite3
import subprocess
import sys

import pytest

from kaapana_assets.errors import StoreUnavailable
from kaapana_assets.stores.query import All, parse
from kaapana_assets.stores.sqlite_index import SqliteIndex

LONG = "Remarks " + "filler " * 60 + "Quastelbury"
OTHER_PROCESS = """
import sys
from pathlib import Path
from kaapana_assets.stores.sqlite_index import SqliteIndex
index = SqliteIndex(Path(sys.argv[1]))
for line in sys.stdin:
    uid, name = line.split()
    index.put([{"SeriesInstanceUID": uid, "Modality": "MR", "PatientName": name}])
    print("done", flush=True)
"""


def document(uid, name, **more):
    return {"SeriesInstanceUID": uid, "Modality": "MR", "PatientName": name, **more}


def found_in_files(folder, text):
    return [path.name for path in folder.iterdir() if text.lower().encode() in path.read_bytes().lower()]


@pytest.fixture
def index(tmp_path):
    index = SqliteIndex(tmp_path / "index" / "index.sqlite")
    yield index
    index.close()


def test_no_file_of_the_index_holds_the_name_of_a_forgotten_series(index, tmp_path):
    folder = tmp_path / "index"
    for number in range(300):
        index.put([document(f"1.{number}", f"Someone^{number}", ImageComments=f"word{number} " * 20)])
    # The name came with an earlier state of the document, too, and with long text.
    index.put([document("1.7", "Zyxander^Quill", StudyDescription="Zyxander's knee")])
    index.put([document("1.7", "Zyxandor^Quill", ImageComments=LONG)])
    assert found_in_files(folder, "zyxander")
    assert found_in_files(folder, "quastelbury")
    index.forget(["1.7", "1.999"])
    assert [found_in_files(folder, text) for text in ("zyxand", "quastelbury", "Quill")] == [[], [], []]
    assert index.count(All()) == 299
    assert [index.count(parse(text)) for text in ("Quastelbury", "Zyxandor", "filler")] == [0, 0, 0]
    assert list(index.series(parse('"word8 word8" AND PatientName:"Someone^8"'))) == ["1.8"]


def test_a_process_that_remembered_forgotten_values_puts_them_anew(index, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "index" / "index.sqlite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def put_there(uid, name):
        process.stdin.write(f"{uid} {name}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    try:
        put_there("1.1", "Zyxander^Quill")
        index.forget(["1.1"])
        index.put([document("1.2", "Another^One")])
        put_there("1.3", "Zyxander^Quill")
        put_there("1.4", "Zyxander^Quill")
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
    assert list(index.series(parse('PatientName:"Zyxander^Quill"'))) == ["1.3", "1.4"]
    assert list(index.series(parse("Zyxander"))) == ["1.3", "1.4"]
    assert list(index.series(parse('PatientName:"Another^One" AND Another'))) == ["1.2"]


def test_values_that_others_still_have_stay(index):
    index.put([document("1.1", "Quill^A"), document("1.2", "Quill^A"), document("1.3", "Quill^B")])
    index.forget(["1.1"])
    assert list(index.series(parse("PatientName:quill^a AND Quill"))) == ["1.2"]
    assert list(index.series(parse("Quill"))) == ["1.2", "1.3"]


def test_a_reader_of_an_older_state_makes_forgetting_fail_until_it_ends(tmp_path):
    index = SqliteIndex(tmp_path / "index" / "index.sqlite", reader_patience_s=0.3)
    index.put([document("1.1", "Zyxander^Quill"), document("1.2", "Another^One")])
    reader = sqlite3.connect(tmp_path / "index" / "index.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM series").fetchone()
    with pytest.raises(StoreUnavailable, match="try again"):
        index.forget(["1.1"])
    reader.execute("COMMIT")
    reader.close()
    index.forget(["1.1"])
    index.close()
    assert found_in_files(tmp_path / "index", "zyxander") == []
