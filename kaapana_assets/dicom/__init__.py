"""Pure functions on DICOM objects: identifiers, headers, digests, documents, consistency, previews.

Nothing here knows about stores or Dagster. The only I/O is reading the file that a caller names.
"""
