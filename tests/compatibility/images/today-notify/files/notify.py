"""Says something of each series and writes nothing."""

import json
import os
from pathlib import Path

config = json.loads((Path(os.environ["WORKFLOW_DIR"]) / "conf" / "conf.json").read_text())
who, project = config["workflow_form"]["username"], config["project_form"]["name"]
for series in sorted(Path(os.environ["BATCHES_INPUT_DIR"]).iterdir()):
    found = list((series / os.environ["OPERATOR_IN_DIR"]).iterdir())
    print(f"to {who} of {project}: {len(found)} files of {series.name}")
