"""Stores on real servers, empty for each test."""

import time
from collections.abc import Callable

import pytest
import requests
from services.running import Running

from kaapana_assets.stores.objects.s3 import MinioObjects
from kaapana_assets.stores.objects.s3_connection import S3Connection


def s3_connection(running: Running, **changed: object) -> S3Connection:
    """How a test reaches its MinIO, quick to give up."""
    given: dict[str, object] = {
        "endpoint": running.settings["KAAPANA_S3_ENDPOINT"],
        "access_key": running.settings["KAAPANA_S3_ACCESS_KEY"],
        "secret_key": running.settings["KAAPANA_S3_SECRET_KEY"],
        "secure": False,
        "timeout_s": 10.0,
    }
    return S3Connection(**(given | changed))  # type: ignore[arg-type]


@pytest.fixture
def minio_store(minio_server: Running) -> MinioObjects:
    connection = s3_connection(minio_server)
    client = connection.open()
    for bucket in client.list_buckets():
        for each in client.list_objects(bucket.name, recursive=True):
            client.remove_object(bucket.name, each.object_name)
        client.remove_bucket(bucket.name)
    return MinioObjects(connection)


@pytest.fixture
def empty_orthanc(orthanc_server: Running) -> Running:
    empty(orthanc_server)
    return orthanc_server


def rest(running: Running, method: str, path: str, **given: object) -> requests.Response:
    """A request to Orthanc's own interface, as an administrator who works in the archive."""
    settings = running.settings
    auth = settings["KAAPANA_DICOMWEB_USER"], settings["KAAPANA_DICOMWEB_PASSWORD"]
    root = settings["KAAPANA_DICOMWEB_URL"].removesuffix("/dicom-web")
    answer = requests.request(method, root + path, auth=auth, timeout=30, **given)  # type: ignore[arg-type]
    answer.raise_for_status()
    return answer


def empty(running: Running) -> None:
    for patient in rest(running, "GET", "/patients").json():
        rest(running, "DELETE", f"/patients/{patient}")


def until(holds: Callable[[], object], *, within_s: float = 120.0) -> None:
    """Wait for a condition; a machine may be slow, and a fixed time is then too short."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.01)
