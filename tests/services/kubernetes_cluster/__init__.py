"""One single-node Kubernetes: sources of its programs, its configuration, and what starts and ends it.

``kube``, ``dns`` and ``pause`` are built by Go; ``supervisor`` runs in the foreground and starts
``node.sh`` in namespaces of its own, with the files that ``configuration`` writes. ``address`` says
which addresses a cluster has. What a machine needs and how a service is made of it: ``services.kubernetes``.
"""

from __future__ import annotations

from pathlib import Path

SOURCES = Path(__file__).parent
