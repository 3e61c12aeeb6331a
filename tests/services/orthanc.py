"""Orthanc with its DICOMweb plugin, from the packages of the distribution."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from services.elasticsearch import answers
from services.service import Missing, Plan

AE_TITLE = "ORTHANC"
_USER = "kaapana-test"
_PASSWORD = "kaapana-test-only"
_PLUGIN_FOLDERS = [Path(folder, "orthanc", "plugins") for folder in ("/usr/share", "/usr/local/share")]


class Orthanc:
    """One archive that keeps what it is given byte by byte; ports: HTTP, DICOM.

    Args:
        full_at_mb: it takes nothing more when it holds so many megabytes; 0: never.
    """

    name = "orthanc"
    ports = 2

    def __init__(self, *, full_at_mb: int = 0) -> None:
        self.full_at_mb = full_at_mb

    def prepare(self) -> None:
        """Needs the Debian packages orthanc and orthanc-dicomweb."""
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin") or shutil.which("Orthanc")
        if program is None:
            raise Missing("the program Orthanc (Debian package orthanc)")
        self._program = program
        plugins = [path for folder in _PLUGIN_FOLDERS for path in sorted(folder.glob("libOrthancDicomWeb.so*"))]
        if not plugins:
            raise Missing("Orthanc's DICOMweb plugin (Debian package orthanc-dicomweb)")
        self._plugin = plugins[0]

    def plan(self, folder: Path, ports: Sequence[int]) -> Plan:
        """See ``Service.plan``."""
        http, dicom = ports
        storage = folder / "orthanc"
        storage.mkdir(parents=True, exist_ok=True)
        configuration = folder / "orthanc.json"
        content = _configuration(storage, self._plugin, http=http, dicom=dicom)
        content |= {"MaximumStorageSize": self.full_at_mb, "MaximumStorageMode": "Reject"}
        configuration.write_text(json.dumps(content, indent=1))
        settings = {
            "KAAPANA_PACS": "dicomweb",
            "KAAPANA_DICOMWEB_URL": f"http://127.0.0.1:{http}/dicom-web",
            "KAAPANA_DICOMWEB_USER": _USER,
            "KAAPANA_DICOMWEB_PASSWORD": _PASSWORD,
            "KAAPANA_DIMSE_URL": f"dimse://{AE_TITLE}@127.0.0.1:{dicom}",
        }
        # Without a password it answers 401, which is an answer.
        system = f"http://127.0.0.1:{http}/system"
        # DCMTK, which it is built on, waits for Nagle's algorithm otherwise.
        environment = {"TCP_NODELAY": "1"}
        return Plan([self._program, str(configuration)], lambda: answers(system, (200, 401)), settings, environment)


def _configuration(storage: Path, plugin: Path, *, http: int, dicom: int) -> dict[str, object]:
    return {
        "Name": "kaapana-test",
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "Plugins": [str(plugin)],
        "HttpPort": http,
        "HttpCompressionEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {_USER: _PASSWORD},
        "DicomAet": AE_TITLE,
        "DicomPort": dicom,
        "DicomAlwaysAllowGet": True,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }
