"""Opens the implementation of each store that the settings select."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kaapana_assets.dicom.limits import limits_of

if TYPE_CHECKING:
    from kaapana_assets.settings import Settings
    from kaapana_assets.stores.elastic_index import ElasticConnection
    from kaapana_assets.stores.files.run_directory import RunDirectories
    from kaapana_assets.stores.files.shelf import Shelf
    from kaapana_assets.stores.index.protocol import MetadataIndex
    from kaapana_assets.stores.objects.protocol import ObjectStore
    from kaapana_assets.stores.pacs.protocol import Pacs


def open_pacs(settings: Settings) -> Pacs:
    """The PACS: the archive of all DICOM instances."""
    if settings.pacs == "folder":
        from kaapana_assets.stores.pacs.folder import FolderPacs

        return FolderPacs(settings.paths.archive, limits=limits_of(settings))
    return _open_archive(settings)


def open_index(settings: Settings) -> MetadataIndex:
    """The metadata index: one searchable document per series."""
    if settings.index == "sqlite":
        from kaapana_assets.stores.sqlite_index import SqliteIndex

        return SqliteIndex(settings.paths.index)
    from kaapana_assets.stores.elastic_index import ElasticIndex

    return ElasticIndex(elastic_connection(settings))


def open_shelf(settings: Settings) -> Shelf:
    """The shelf: the outputs that are kept as assets."""
    from kaapana_assets.stores.files.shelf import Shelf

    return Shelf(settings.paths.shelf)


def open_run_directories(settings: Settings) -> RunDirectories:
    """The run directories, in which operators work."""
    from kaapana_assets.stores.files.run_directory import RunDirectories

    return RunDirectories(settings.paths.run_directories)


def elastic_connection(settings: Settings) -> ElasticConnection:
    """The connection to Elasticsearch that the settings describe."""
    from kaapana_assets.stores.elastic_index import ElasticConnection

    return ElasticConnection(
        urls=settings.elasticsearch_urls,
        api_key=settings.elasticsearch_api_key.get_secret_value(),
        user=settings.elasticsearch_user,
        password=settings.elasticsearch_password.get_secret_value(),
        ca_file=settings.elasticsearch_ca,
        fingerprint=settings.elasticsearch_fingerprint.replace(":", ""),
        timeout_s=settings.elasticsearch_timeout_s,
        patience_s=settings.elasticsearch_patience_s,
        index=settings.elasticsearch_index,
        shards=settings.elasticsearch_shards,
        replicas=settings.elasticsearch_replicas,
        fields=settings.elasticsearch_fields,
    )


def open_objects(settings: Settings) -> ObjectStore:
    """The object store: the buckets that results are put into."""
    if settings.objects == "folder":
        from kaapana_assets.stores.objects.folder import FolderObjects

        return FolderObjects(settings.paths.objects)
    from kaapana_assets.stores.objects.s3 import MinioObjects
    from kaapana_assets.stores.objects.s3_connection import S3Connection

    return MinioObjects(
        S3Connection(
            endpoint=settings.s3_endpoint,
            access_key=settings.s3_access_key.get_secret_value(),
            secret_key=settings.s3_secret_key.get_secret_value(),
            secure=settings.s3_secure,
            region=settings.s3_region,
            ca_file=settings.s3_ca,
            timeout_s=settings.s3_timeout_s,
            attempts=settings.s3_attempts,
        )
    )


def _open_archive(settings: Settings) -> Pacs:
    from kaapana_assets.stores.pacs.remote.connection import ArchiveConnection
    from kaapana_assets.stores.pacs.remote.dicomweb import DicomwebArchive
    from kaapana_assets.stores.pacs.remote.dimse import peer_of
    from kaapana_assets.stores.pacs.remote.pacs import DicomwebPacs
    from kaapana_assets.stores.pacs.remote.senders import DimseSender, InstanceSender, StowSender

    archive = DicomwebArchive(
        ArchiveConnection(
            url=settings.dicomweb_url,
            user=settings.dicomweb_user,
            password=settings.dicomweb_password.get_secret_value(),
            token=settings.dicomweb_token.get_secret_value(),
            ca_file=settings.dicomweb_ca,
            timeout_s=settings.dicomweb_timeout_s,
            attempts=settings.dicomweb_attempts,
            parallel=settings.dicomweb_parallel,
        )
    )
    sender: InstanceSender
    if settings.pacs == "dimse":
        peer = peer_of(settings.dimse_url, calling_ae_title=settings.dimse_ae_title)
        sender = DimseSender(peer, check_timeout_s=min(3.0, settings.dicomweb_timeout_s))
    else:
        sender = StowSender(
            archive,
            batch_bytes=settings.dicomweb_batch_bytes,
            batch_instances=settings.dicomweb_batch_instances,
        )
    # Each archive has its own folder: the catalog of one says nothing about another.
    name = hashlib.sha256(settings.dicomweb_url.encode()).hexdigest()[:16]
    folder = settings.paths.archives / name
    return DicomwebPacs(archive, sender, folder, cache_bytes=settings.series_cache_bytes, limits=limits_of(settings))
