"""What the SQLite index promises beyond the contract: durability and several processes."""

import sqlite3
import subprocess
import sys
import unicodedata

import pytest

from kaapana_assets.errors import ConfigurationError, StoreUnavailable
from kaapana_assets.stores.query import All, parse
from kaapana_assets.stores.sqlite_index import SqliteIndex

PUTTING = """
import sys
from pathlib import Path
from kaapana_assets.stores.sqlite_index import SqliteIndex
index = SqliteIndex(Path(sys.argv[1]))
for number in range(30):
    index.put([{"SeriesInstanceUID": f"1.{sys.argv[2]}.{number}", "Modality": "MR", "Name": f"words {number}"}])
    print(number, flush=True)
"""


def test_processes_that_start_at_once_put_everything(tmp_path):
    path = tmp_path / "new" / "index.sqlite"
    processes = [
        subprocess.Popen([sys.executable, "-c", PUTTING, str(path), str(worker)], stdout=subprocess.DEVNULL)
        for worker in range(1, 5)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    index = SqliteIndex(path)
    assert index.count(parse('Modality:MR AND "words 29"')) == 4
    assert index.count(All()) == 120
    index.close()


def test_what_was_put_survives_a_killed_process(tmp_path):
    path = tmp_path / "index.sqlite"
    process = subprocess.Popen([sys.executable, "-c", PUTTING, str(path), "1"], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(process.stdout.readline()) for _ in range(10)]
    process.kill()
    process.wait()
    process.stdout.close()
    index = SqliteIndex(path)
    for number in acknowledged:
        assert index.count(parse(f'SeriesInstanceUID:1.1.{number} AND "words {number}"')) == 1
    index.put([{"SeriesInstanceUID": "1.9"}])
    index.close()


def test_failed_batch_leaves_nothing_and_later_ones_are_whole(tmp_path):
    index = SqliteIndex(tmp_path / "index.sqlite")
    with pytest.raises(TypeError):
        index.put([{"SeriesInstanceUID": "1.1", "Modality": "XX"}, {"SeriesInstanceUID": "1.2", "Bad": {1, 2}}])
    assert index.count(All()) == 0
    index.put([{"SeriesInstanceUID": "1.3", "Modality": "XX"}])
    assert list(index.series(parse("Modality:XX AND XX"))) == ["1.3"]
    index.close()


@pytest.mark.parametrize(
    "call", [lambda index: index.count(All()), lambda index: index.put([{"SeriesInstanceUID": "1.1"}])]
)
def test_file_that_is_no_database_is_unavailable(tmp_path, call):
    path = tmp_path / "index.sqlite"
    path.write_text("this is not a database, and long enough to be sure of it" * 10)
    with pytest.raises(StoreUnavailable, match=r"index\.sqlite"):
        call(SqliteIndex(path))


def test_folder_that_cannot_be_made_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        SqliteIndex(tmp_path / "file" / "index.sqlite").count(All())


def test_tables_of_another_version_are_refused(tmp_path):
    path = tmp_path / "index.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigurationError, match="version 99"):
        SqliteIndex(path).count(All())


def as_version_1(path, documents):
    """An index as the program before wrote it: text was not composed."""
    index = SqliteIndex(path)
    index.put(documents)
    index.close()
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT id, folded, value FROM vocabulary WHERE typeof(value) = 'text'").fetchall()
    for number, *texts in rows:
        apart = [unicodedata.normalize("NFD", text) for text in texts]
        connection.execute("UPDATE vocabulary SET folded = ?, value = ? WHERE id = ?", (*apart, number))
    connection.execute("PRAGMA user_version=1")
    connection.commit()
    connection.close()


def test_index_of_the_version_before_is_brought_to_this_one_and_keeps_every_document(tmp_path):
    path = tmp_path / "index.sqlite"
    name = unicodedata.normalize("NFD", "Müller^Renée")
    documents = [{"SeriesInstanceUID": f"1.{n}", "PatientName": name, "Number": n} for n in range(300)]
    as_version_1(path, documents)
    opened = [SqliteIndex(path) for _ in range(2)]
    assert opened[0].check().counts == {"documents": 300}
    for index in opened:
        assert index.count(parse('PatientName:="Müller^Renée" AND renée')) == 300
    assert opened[1].get("1.7") == documents[7]
    opened[0].put([{"SeriesInstanceUID": "1.7", "PatientName": "Other"}])
    assert opened[1].count(parse('PatientName:="müller^renée"')) == 299
    for index in opened:
        index.close()


def test_index_is_usable_after_close_and_from_a_second_object(tmp_path):
    path = tmp_path / "index.sqlite"
    one, two = SqliteIndex(path), SqliteIndex(path)
    one.put([{"SeriesInstanceUID": "1.1", "Modality": "CT"}])
    two.put([{"SeriesInstanceUID": "1.1", "Modality": "MR"}, {"SeriesInstanceUID": "1.2", "Modality": "CT"}])
    one.put([{"SeriesInstanceUID": "1.3", "Modality": "MR"}])
    assert list(one.series(parse("Modality:MR"))) == list(two.series(parse("Modality:MR"))) == ["1.1", "1.3"]
    one.close()
    two.close()
