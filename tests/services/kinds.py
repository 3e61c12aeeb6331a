"""All services that there are."""

from __future__ import annotations

from services.elasticsearch import Elasticsearch
from services.kubernetes import Kubernetes
from services.minio import MinioServer
from services.orthanc import Orthanc
from services.postgres import PostgresServer
from services.registry import ImageRegistry
from services.service import Service

_ALL: tuple[type[Service], ...] = (Elasticsearch, MinioServer, Orthanc, PostgresServer, ImageRegistry, Kubernetes)
KINDS: dict[str, type[Service]] = {each.name: each for each in _ALL}
# Started only if they are named: few need them, and they take much or change what images are called.
ON_DEMAND = {ImageRegistry.name, Kubernetes.name}
