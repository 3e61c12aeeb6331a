"""The archive of all DICOM instances."""
