"""The size limit of deflated datasets, which can inflate to a thousand times their file size.

Every reader checks it before it inflates a dataset.
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
    """Check that a deflated dataset inflates to no more than the limit; any other file passes.

    The dataset is inflated once, chunk by chunk, and the chunks are discarded.

    Args:
        file: positioned at its start, and again on return.
        path: named in the error.
        limit_bytes: limit for the inflated dataset.

    Raises:
        OverLimit: the inflated dataset is larger.
        zlib.error: the dataset is damaged.
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
    """Whether pydicom would inflate the dataset; leaves the file positioned at the dataset."""
    syntax = skip_file_meta(file)
    if syntax is None:
        # The preamble may be missing, or the file odd in a way that pydicom tolerates.
        file.seek(0)
        read_preamble(file, force=True)
        syntax = str(_read_file_meta_info(file).get("TransferSyntaxUID", ""))
    return syntax == DeflatedExplicitVRLittleEndian
