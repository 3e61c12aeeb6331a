"""Counts what the operator before it listed; the form of the workflow says of which run."""

import json
import os
from pathlib import Path

assert sorted(path.name for path in Path(__file__).parent.glob("*.py")) == ["count.py"]

config = json.loads((Path(os.environ["WORKFLOW_DIR"]) / "conf" / "conf.json").read_text())
for uid in config["data_form"]["identifiers"]:
    series = Path(os.environ["BATCHES_INPUT_DIR"]) / uid
    target = series / os.environ["OPERATOR_OUT_DIR"]
    target.mkdir(parents=True, exist_ok=True)
    numbers = [
        len(json.loads(path.read_text())["files"]) for path in (series / os.environ["OPERATOR_IN_DIR"]).iterdir()
    ]
    assert config["workflow_form"]["again"] == int(os.environ["AGAIN"])
    (target / "count.txt").write_text(f"{sum(numbers)} {os.environ['UNIT']} in run {os.environ['AGAIN']}")
