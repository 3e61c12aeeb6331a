"""Counts what the operator before it listed; settings lie beside the script and in the form."""

import argparse
import glob
import json
import os

import words

parser = argparse.ArgumentParser()
parser.add_argument("--name")
parser.add_argument("--words")
given = parser.parse_args()

with open(os.path.join("/", os.environ["WORKFLOW_DIR"], "conf", "conf.json")) as file:
    form = json.load(file)["conf"]["form_data"]

for series in glob.glob(os.path.join("/", os.environ["WORKFLOW_DIR"], os.environ["BATCH_NAME"], "*")):
    lines = []
    for path in glob.glob(os.path.join(series, os.environ["OPERATOR_IN_DIR"], "*.json")):
        with open(path) as file:
            lines.append(words.say(len(json.load(file)["files"]), open(given.words).read().strip(), form["again"]))
    target = os.path.join(series, os.environ["OPERATOR_OUT_DIR"])
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, given.name), "w") as file:
        file.write("\n".join(lines))
