"""Puts what all series have into one file."""

import glob
import os

root = os.path.join("/", os.environ["WORKFLOW_DIR"])
target = os.path.join(root, os.environ["OPERATOR_OUT_DIR"])
os.makedirs(target, exist_ok=True)
paths = sorted(glob.glob(os.path.join(root, os.environ["BATCH_NAME"], "*", os.environ["OPERATOR_IN_DIR"], "*")))
with open(os.path.join(target, "pooled.txt"), "w") as file:
    for path in paths:
        file.write("{}: {}\n".format(path.split("/")[-3], open(path).read()))
