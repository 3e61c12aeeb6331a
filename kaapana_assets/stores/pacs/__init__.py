"""The PACS: the archive of all DICOM instances."""
