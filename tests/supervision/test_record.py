"""What other commands learn of a running platform."""

import dataclasses

import pytest

from kaapana_assets.errors import ConfigurationError
from kaapana_assets.supervision import record

RECORD = record.PlatformRecord(
    pid=1,
    token="t",
    folder="/nowhere",
    webserver_host="127.0.0.1",
    webserver_port=4321,
    receiver_host="127.0.0.1",
    receiver_port=5432,
    receiver_ae_title="OTHER",
)


def test_a_home_without_a_platform_keeps_its_settings(tmp_path):
    assert record.running_platform(tmp_path) is None
    assert record.settings_in_use(home=tmp_path, webserver_port=3456).webserver_port == 3456


def test_the_record_counts_only_while_the_lock_is_held(tmp_path):
    with record.lock_home(tmp_path):
        record.write_record(tmp_path, RECORD)
        assert record.running_platform(tmp_path) == RECORD
        found = record.settings_in_use(home=tmp_path)
        assert (found.dagster_url, found.receiver_port) == ("http://127.0.0.1:4321", 5432)
        assert found.receiver_ae_title == "OTHER"
    assert record.running_platform(tmp_path) is None
    assert record.read_record(tmp_path) == RECORD


def test_a_second_lock_is_refused_with_the_place_of_the_first(tmp_path):
    with record.lock_home(tmp_path):
        record.write_record(tmp_path, dataclasses.replace(RECORD, pid=77))
        with pytest.raises(ConfigurationError, match=r"already up on KAAPANA_HOME=.*process 77, http://127.0.0.1:4321"):
            record.lock_home(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'], ids=["empty", "cut", "list", "incomplete"])
def test_a_damaged_record_is_none(tmp_path, text):
    (tmp_path / "platform.json").write_text(text)
    assert record.read_record(tmp_path) is None
