"""A PACS on a server, by DICOMweb and DIMSE."""
