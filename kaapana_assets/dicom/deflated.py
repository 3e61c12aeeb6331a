"""Deflated datasets, which can hold a thousand times what their files do.

Every reader asks here before it inflates one.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.uid import DeflatedExplicitVRLittleEndian

from kaapana_assets.dicom.file_meta import skip_file_meta
from kaapana_assets.errors import OverLimit

_CHUNK_BYTES = 64 * 1024
_INFLATED_CHUNK_BYTES = 1024 * 1024


def check_inflated_size(file: BinaryIO, *, path: Path, limit_bytes: int) -> None:
    """See that a deflated dataset is not larger than the limit; any other file passes.

    It is inflated once for that, in pieces that are thrown away.

    Args:
        file: at its begin, and there again on return.
        path: to name in the error.
        limit_bytes: of the inflated dataset.

    Raises:
        OverLimit: it is larger.
        zlib.error: it is damaged.
    """
    if _is_deflated(file):
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        size = 0
        while not inflater.eof and (chunk := file.read(_CHUNK_BYTES)):
            while chunk and not inflater.eof:
                size += len(inflater.decompress(chunk, _INFLATED_CHUNK_BYTES))
                if size > limit_bytes:
                    raise OverLimit(
                        f"{path}: its deflated dataset is larger than KAAPANA_INFLATED_BYTES ({limit_bytes}) when it "
                        "is inflated: raise the setting and import it again if it is wanted"
                    )
                chunk = inflater.unconsumed_tail
    file.seek(0)


def _is_deflated(file: BinaryIO) -> bool:
    """Whether pydicom would inflate what follows the file meta information; the file is positioned there."""
    syntax = skip_file_meta(file)
    if syntax is None:
        # It may lack its preamble, or be odd in a way that pydicom gets over.
        file.seek(0)
        read_preamble(file, force=True)
        syntax = str(_read_file_meta_info(file).get("TransferSyntaxUID", ""))
    return syntax == DeflatedExplicitVRLittleEndian
