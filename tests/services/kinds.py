"""All services that there are."""

from __future__ import annotations

from services.elasticsearch import Elasticsearch
from services.minio import MinioServer
from services.orthanc import Orthanc
from services.postgres import PostgresServer
from services.service import Service

KINDS: dict[str, type[Service]] = {each.name: each for each in (Elasticsearch, MinioServer, Orthanc, PostgresServer)}
