"""Lists the files of each series with a module and a schema beside the script."""

import json
import os
from multiprocessing.pool import ThreadPool
from pathlib import Path

from listing import listed

settings = {name: os.environ[name] for name in ("WORKFLOW_DIR", "BATCH_NAME", "OPERATOR_IN_DIR", "OPERATOR_OUT_DIR")}
schema = json.loads(Path(os.environ["SCHEMA"]).read_text())
batch = Path(settings["WORKFLOW_DIR"]) / settings["BATCH_NAME"]
assert str(batch) == os.environ["BATCHES_INPUT_DIR"]


def process(series: Path) -> str:
    target = series / settings["OPERATOR_OUT_DIR"]
    target.mkdir(exist_ok=True)
    (target / f"{series.name}.json").write_text(
        json.dumps({schema["key"]: listed(series / settings["OPERATOR_IN_DIR"])})
    )
    return series.name


with ThreadPool(int(os.environ["THREADS"])) as pool:
    for name in pool.imap_unordered(process, sorted(batch.iterdir())):
        print(f"Done: {name}")
