"""The cache of series: what it keeps, what goes first, and that it never gives half a series."""

import os

import pytest
from stores.instances import write

from kaapana_assets.dicom.digests import content_digest
from kaapana_assets.stores.pacs.protocol import StoredInstance, StoredSeries
from kaapana_assets.stores.pacs.remote.series_cache import SeriesCache


@pytest.fixture
def cache(tmp_path):
    return SeriesCache(tmp_path / "cache", 10_000)


def a_series(tmp_path, uid, *, size=1000, count=3):
    folder = tmp_path / f"of-{uid}"
    instances = []
    for number in range(count):
        path = write(tmp_path / "in", f"{uid}.{number}", series=uid, pixels=bytes(size))
        folder.mkdir(exist_ok=True)
        target = path.rename(folder / f"{uid}.{number}.dcm")
        instances.append(StoredInstance(f"{uid}.{number}", target.stat().st_size, content_digest(target)))
    return StoredSeries("1.1", uid, tuple(instances)), folder


def given(cache, series, folder, *, writable_copy=False):
    folder.mkdir(parents=True, exist_ok=True)
    return cache.give(series, folder, writable_copy=writable_copy)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "copied"])
def test_what_was_kept_is_given(cache, tmp_path, share):
    series, files = a_series(tmp_path, "1.2")
    assert not given(cache, series, tmp_path / "out")
    cache.keep(series, files, share=share)
    assert given(cache, series, tmp_path / "out", writable_copy=True)
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (files / path.name).read_bytes()
        path.write_bytes(b"changed by an operator")
    assert given(cache, series, tmp_path / "again")
    assert all((tmp_path / "again" / path.name).read_bytes() == path.read_bytes() for path in files.iterdir())


def test_the_one_unused_for_longest_goes_and_the_limit_holds(cache, tmp_path):
    made = [a_series(tmp_path, f"1.{number}") for number in range(2, 5)]  # 3.7 kB each
    for used_at, (series, files) in enumerate(made[:2], start=1):
        cache.keep(series, files, share=True)
        (entry,) = (tmp_path / "cache").glob(f"{series.series_instance_uid}-*")
        os.utime(entry, (used_at, used_at))
    assert given(cache, made[0][0], tmp_path / "used")
    cache.keep(*made[2], share=True)
    assert cache.size_bytes() <= 10_000
    assert [given(cache, series, tmp_path / series.series_instance_uid) for series, _ in made] == [True, False, True]
    large, files = a_series(tmp_path, "1.9", size=20_000, count=1)
    cache.keep(large, files, share=True)
    assert not given(cache, large, tmp_path / "large")


def test_a_changed_or_broken_series_is_not_given(cache, tmp_path):
    series, files = a_series(tmp_path, "1.2")
    cache.keep(series, files, share=True)
    fewer = StoredSeries("1.1", "1.2", series.instances[:2])
    assert not given(cache, fewer, tmp_path / "fewer")
    for path in (tmp_path / "cache").rglob("*.2.dcm"):
        path.unlink()
    assert not given(cache, series, tmp_path / "broken")
    assert list((tmp_path / "broken").iterdir()) == []
    cache.keep(series, files, share=True)
    assert given(cache, series, tmp_path / "mended")


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "cache").write_text("a file")
    series, files = a_series(tmp_path, "1.2")
    SeriesCache(tmp_path / "cache", 10_000).keep(series, files, share=True)
