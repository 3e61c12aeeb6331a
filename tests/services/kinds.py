"""All services that there are."""

from __future__ import annotations

from services.elasticsearch import Elasticsearch
from services.service import Service

KINDS: dict[str, type[Service]] = {"elasticsearch": Elasticsearch}
