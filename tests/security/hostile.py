r"""What operators do to the platform, the same for every runner, and a run of it in containers.

Attacks are shell scripts on one series, with the variables ``$folder`` (of the series), ``$in``, ``$out`` (filled
already) and ``$outside``, a folder that is not the operator's; ``$WORKFLOW_DIR`` is the view of the launch.
"""

import json
import re
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from services.images import BASE_IMAGE
from system.conftest import Platforms, RunningPlatform
from system.series import write_series

DEEP = 'deep="$out/$(printf "d/%.0s" $(seq 990))"; mkdir -p "$deep"; touch "$deep/x"'
# What is left for one series, and what is said of it.
LEFT = {
    "link-beside-output": ('ln -s "$outside" "$folder/other"', "other is a link"),
    "link-for-input": ('rm -r "$in"; ln -s "$outside" "$in"', "is a link"),
    "link-for-output": ('mv "$out" "$folder/aside"; ln -s "$outside" "$out"', "is a link"),
    "link-deep": ('mkdir -p "$out/a/b"; ln -s "$outside" "$out/a/b/c"', "c is a link"),
    "link-of-odd-name": (
        r"""ln -s "$outside" "$out/$(printf 'x\377\033]0;title\007\n')" """, r"x\xff\x1b]0;title\x07 is a link"
    ),
    "pipe": ('mkfifo "$out/x"', "x is a pipe"),
    "socket": (
        "(cd \"$out\"; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"x\")')", "x is a socket"
    ),
    "deep": (DEEP, "deeper than 64"),
}  # fmt: skip
# The same, over a limit that the platform has by ``SETTINGS``.
SETTINGS = {"KAAPANA_OUTPUT_FILES": "100", "KAAPANA_OUTPUT_BYTES": "1000000"}
LARGE = {
    "files": ('mkdir "$out/a"; for i in $(seq 101); do : > "$out/a/$i"; done', "KAAPANA_OUTPUT_FILES"),
    "folders": ('for i in $(seq 101); do mkdir "$out/$i"; done', "KAAPANA_OUTPUT_FILES"),
    "bytes": ('truncate -s 10M "$out/hole"', "KAAPANA_OUTPUT_BYTES"),
}
# In a container the input is the archive's own file, which can be moved, not linked.
_REFUSED = (
    LEFT
    | {name: LARGE[name] for name in ("files", "bytes")}
    | {"moved-input": ('mv "$in"/*1.dcm "$out/x.dcm"', "x.dcm is a hard link")}
)
# What is taken without what was done to it.
_TAKEN = {
    "setuid": ('cp /bin/true "$out/tool"; chmod 6755 "$out/tool"; chmod 1777 "$out"', ""),
    "forged": (
        'cd "$WORKFLOW_DIR"; mkdir -p report conf/results launches; echo \'{"failed": {"forged": ""}}\' > '
        "report/report.json; echo '{\"cohort\": \"other\"}' > mine; mv mine conf/conf.json; mv conf mine; rm -r conf",
        "",
    ),
    "plain": ("", ""),
}  # fmt: skip
_ATTACKS = _REFUSED | _TAKEN
# What a launch does to its view itself: refused as a whole.
_POOLED = {
    "batch-swapped": ('mv batch aside; ln -s "$outside" batch', "batch is a link"),
    "output-swapped": ('mv "$OPERATOR_OUT_DIR" aside; ln -s "$outside" "$OPERATOR_OUT_DIR"', "is a link"),
    "report-pipe": ('mkdir report; mkfifo report/report.json', "report.json is a pipe"),
}  # fmt: skip
# Printed by an operator that fails: it retitles the terminal, clears it, and is no UTF-8.
_PRINTED = r"""
printf '\033]0;title\007said \033[31mred\033[2J\033[H \377\n'; printf '\033]52;c;eA==\007last words\n'; exit 3
"""
_STEERING = re.compile("^.*[\x00-\x08\x0b-\x1f\x7f-\x9f].*$", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_SERIES = "1.2.826.0.1.3680043.9.7.%d"
_WORKFLOW = """
from kaapana_assets.workflows import ContainerOperator, Workflow
def operator(name, script, **options):
    return ContainerOperator(name=name, image={image!r}, command=("bash", "-c", script), **options)
series, pooled = {series!r}, {pooled!r}
operators = (operator("series", series), *(operator(name, pooled[name], level="cohort") for name in pooled))
workflow = Workflow(name="hostile", operators=operators)
"""


@dataclass
class Attacked:
    """A platform after a run of the hostile workflow over one series for each attack.

    Attributes:
        series: by attack.
        said: what the command printed that followed the run.
    """

    platform: RunningPlatform
    series: Mapping[str, str]
    said: str

    @property
    def shelf(self) -> Path:
        return self.platform.home / "assets" / "hostile"

    def row(self, operator: str) -> dict[str, Any]:
        """What the report says of an operator."""
        report = json.loads((self.shelf / "report" / "all" / "report.json").read_text())
        assert report["cohort"] == "all"
        return next(row for row in report["operators"] if row["operator"] == operator)


@contextmanager
def attacked_platform(
    platforms: Platforms, folder: Path, pooled: Mapping[str, str], *, home: Path, **settings: str
) -> Iterator[Attacked]:
    """A platform whose operators attack it in containers.

    Args:
        platforms: starts it.
        folder: for files that are sent.
        pooled: more pooled operators, by name, and their scripts; ``$out`` is there already.
        home: of the platform.
        settings: of the platform.
    """
    series = {name: _SERIES % number for number, name in enumerate(_ATTACKS)}
    scripts = {name: _pooled_script(script) for name, (script, _) in _POOLED.items()}
    scripts |= {name: _pooled_script(script) for name, script in {"printing": _PRINTED, **pooled}.items()}
    dags = home / "workflows" / "dags"
    dags.mkdir(parents=True)
    (dags / "hostile.py").write_text(_WORKFLOW.format(image=BASE_IMAGE, series=_series_script(series), pooled=scripts))
    platform = platforms.start(home, **SETTINGS, **settings)
    for uid in series.values():
        write_series(folder, series=uid, instances=2)
    platform.kaapana("import", folder)
    there = platform.dagster.latest_materialization
    platform.wait_until(lambda: all(there("series_metadata", uid) for uid in series.values()), 180, "assets")
    platform.kaapana("cohort", "create", "all", "--query", "Modality:MR")
    done = platform.kaapana("run", "hostile", "--cohort", "all", check=False)
    try:
        yield Attacked(platform, series, done.stdout + done.stderr)
        platform.stop()
    finally:
        # Deeper than Python itself could remove.
        subprocess.run(["rm", "-rf", home / "workflows"], check=True)


def _series_script(series: Mapping[str, str]) -> str:
    cases = "\n".join(f"{uid}) {_ATTACKS[name][0] or ':'};;" for name, uid in series.items())
    return f"""
outside=/etc
for folder in "$WORKFLOW_DIR/$BATCH_NAME"/*; do
in="$folder/$OPERATOR_IN_DIR" out="$folder/$OPERATOR_OUT_DIR"
mkdir -p "$out"; echo x > "$out/x.txt"
case "${{folder##*/}}" in
{cases}
esac
done
exit 0
"""


def _pooled_script(script: str) -> str:
    return f"""
outside=/etc out="$WORKFLOW_DIR/$OPERATOR_OUT_DIR"
mkdir -p "$out"; echo x > "$out/x.txt"; cd "$WORKFLOW_DIR"
{script}
"""


class HostileOperators:
    """The tests; a subclass has the fixture ``attacked``."""

    @pytest.mark.parametrize("name", _REFUSED)
    def test_what_is_no_plain_output_is_refused_by_name_for_its_series(self, attacked: Attacked, name: str) -> None:
        uid = attacked.series[name]
        assert _REFUSED[name][1] in attacked.row("series")["failed"][uid]
        assert not (attacked.shelf / "series" / uid).exists()

    def test_series_beside_attacks_are_done(self, attacked: Attacked) -> None:
        row = attacked.row("series")
        assert set(row["done"]) == {attacked.series[name] for name in _TAKEN}
        assert set(row["failed"]) == {attacked.series[name] for name in _REFUSED}

    @pytest.mark.parametrize("name", _POOLED)
    def test_view_that_is_no_plain_one_is_refused_as_a_whole(self, attacked: Attacked, name: str) -> None:
        assert _POOLED[name][1] in attacked.row(name)["reason"]
        assert not (attacked.shelf / name / "all").exists()

    def test_content_is_taken_without_its_special_bits(self, attacked: Attacked) -> None:
        taken = attacked.shelf / "series" / attacked.series["setuid"]
        assert (taken / "tool").stat().st_size > 0
        assert not any(stat.S_IMODE(path.stat().st_mode) & 0o7022 for path in (taken, *taken.iterdir()))

    def test_no_series_has_what_is_outside_of_its_launch(self, attacked: Attacked) -> None:
        assert not list(attacked.shelf.rglob("passwd"))
        assert not [path for path in attacked.shelf.rglob("*") if path.is_symlink()]

    def test_nothing_that_an_operator_printed_or_named_steers_a_terminal(self, attacked: Attacked) -> None:
        """Colours may stay where output is kept as it was."""
        platform = attacked.platform
        run = platform.dagster.runs(job="hostile", limit=1)[0].run_id
        kept = [path for name in ("logs", "dagster/compute_logs") for path in (platform.home / name).rglob("*.*")]
        texts = {str(path): path.read_text(errors="replace") for path in kept if path.is_file()}
        texts |= {"report": json.dumps(attacked.row("printing"), ensure_ascii=False), "run": attacked.said}
        texts |= {"events": "\n".join(event.message for event in platform.dagster.events(run)[0])}
        assert all("last words" in texts[name] for name in ("report", "events"))
        assert any("last words" in text for name, text in texts.items() if name.endswith(".out"))
        found = {name: _STEERING.findall(_COLOURS.sub("", text)) for name, text in texts.items()}
        assert not any(found.values()), {name: lines for name, lines in found.items() if lines}

    def test_what_failed_operators_left_is_cleaned(self, attacked: Attacked) -> None:
        attacked.platform.kaapana("clean", "--days", "0")
        assert list((attacked.platform.home / "workflows" / "data").glob("hostile-*")) == []
