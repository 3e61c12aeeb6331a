"""Lists the files of each series, as the first scripts did: all paths joined to the root."""

import glob
import json
import os

base = os.path.join("/", os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"])
for series in sorted(glob.glob(os.path.join(base, "*"))):
    found = sorted(glob.glob(os.path.join(series, os.environ["OPERATOR_IN_DIR"], "*.dcm*"), recursive=True))
    if not found:
        print("No dicom file found!")
        raise SystemExit(1)
    target = os.path.join(series, os.environ["OPERATOR_OUT_DIR"])
    if not os.path.exists(target):
        os.makedirs(target)
    with open(os.path.join(target, f"{os.path.basename(series)}.json"), "w") as file:
        json.dump({"files": [os.path.basename(path) for path in found]}, file, sort_keys=True)
