"""Reads DICOM with the packages that its Dockerfile installs."""

import glob
import os

import pydicom
import six

for series in glob.glob(os.path.join(os.environ["BATCHES_INPUT_DIR"], "*")):
    target = os.path.join(series, os.environ["OPERATOR_OUT_DIR"])
    os.makedirs(target)
    files = sorted(glob.glob(os.path.join(series, os.environ["OPERATOR_IN_DIR"], "*.dcm")))
    ds = pydicom.dcmread(files[0])
    with open(os.path.join(target, "found.txt"), "w") as file:
        file.write(f"{ds.SeriesInstanceUID} {pydicom.__version__} {six.__version__}")
