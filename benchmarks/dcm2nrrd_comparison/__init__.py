"""Compares what dcm2nrrd writes with dcm2niix, GDCM and pydicom, series by series."""
