"""Receives DICOM objects into the spool and ingests complete series into the PACS and the index."""
