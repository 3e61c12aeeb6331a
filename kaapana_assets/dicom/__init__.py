"""What DICOM says, as pure functions: identifiers, headers, documents, geometry.

Nothing here knows of stores or Dagster, and nothing does I/O beyond reading a file it is given.
"""
