"""Of all that an operator printed, the line that says why it failed is shown."""

import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest

from kaapana_assets.containers.outcomes import outcome_of
from kaapana_assets.containers.protocol import Launch
from kaapana_assets.containers.reasons import short_reason, telling_line
from kaapana_assets.errors import OperatorError

SERIES = "1.2.3.2"

TRACEBACK = """\
Processing series 1.2.3.2
Traceback (most recent call last):
  File "/app/main.py", line 5, in <module>
    convert("1.2.3.2")
  File "/app/main.py", line 3, in convert
    raise ValueError("slice distances differ")
ValueError: slice distances differ
"""
CHAINED = (
    TRACEBACK
    + """
The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/app/main.py", line 7, in <module>
    raise RuntimeError("one series failed") from e
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
RuntimeError: one series failed
"""
)
SYNTAX = """\
  File "/app/main.py", line 1
    x = (1,
        ^
SyntaxError: '(' was never closed
"""
MODULE = """\
Traceback (most recent call last):
  File "/app/main.py", line 1, in <module>
    import nosuch
ModuleNotFoundError: No module named 'nosuch'
"""
OWN_NAME = """\
Traceback (most recent call last):
  File "/app/main.py", line 9, in <module>
    main()
scanner.Refusal
==============
"""
TWO_LINES = """\
Traceback (most recent call last):
  File "/app/main.py", line 9, in <module>
    raise RuntimeError("")
RuntimeError:

the model weights are not there
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/app/g.py", line 1, in <module>
  |     raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])
  | ExceptionGroup: several (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: one
    +---------------- 2 ----------------
    | TypeError: two
    +------------------------------------
"""
CPP = """\
reading 1.2.3.2
terminate called after throwing an instance of 'std::runtime_error'
  what():  no orientation in header
bash: line 1: 17503 Aborted                 ./convert
"""
ITK = """\
itk::ExceptionObject (0x55d0c8e3a6b0)
Location: "unknown"
File: /work/ITK/Modules/IO/ImageBase/include/itkImageFileReader.hxx
Line: 125
Description: ITK ERROR: ImageFileReader(0x55d0c8e3b0a0):  Could not create IO object for reading file /data/x.dcm

"""
JAVA = """\
Exception in thread "main" java.lang.RuntimeException: bad header
\tat X.main(X.java:1)
Caused by: java.lang.NumberFormatException: For input string: "x"
\tat java.base/java.lang.Integer.parseInt(Integer.java:668)
\tat X.main(X.java:1)
"""
NODE = """\
[eval]:1
throw new TypeError("x is not a volume")
^

TypeError: x is not a volume
    at [eval]:1:7
    at node:internal/process/execution:118:14

Node.js v20.20.2
"""
DCM2NIIX = """\
Chris Rorden's dcm2niiX version v1.0.20260724  (JP2:OpenJPEG) (JP-LS:CharLS) GCC10.2.1 x86-64 (64-bit Linux)
Error: Unable to find any DICOM images in /data/batch/1.2.3.2/initial-input (or subfolders 5 deep)
"""
TQDM = """\
geometry of slice 3 is broken
slices:   0%|          | 0/3 [00:00<?, ?it/s]
slices: 100%|██████████| 3/3 [00:00<00:00, 52428.80it/s]
[##########          ]
  47 %
--------------------
"""
UV = """\
Using Python 3.11.7 environment at: v
error: No solution found when resolving dependencies
  cause: Because nosuchpackage was not found in the package registry, your requirements are unsatisfiable.
"""
BATCH = """\
series 1.2.3.1 is done
1.2.3.2: geometry is not supported
series 1.2.3.22 failed: no pixels
1 of 3 series could not be converted
"""
HANDLED = """\
series 1.2.3.2 is refused: mixed orientation
Traceback (most recent call last):
  File "/app/main.py", line 9, in <module>
    raise SystemError("1 series failed")
SystemError: 1 series failed
"""

CASES = {
    "exception": (TRACEBACK, "ValueError: slice distances differ"),
    "chained": (CHAINED, "RuntimeError: one series failed"),
    "syntax": (SYNTAX, "SyntaxError: '(' was never closed"),
    "module": (MODULE, "ModuleNotFoundError: No module named 'nosuch'"),
    "exception-without-message": (OWN_NAME, "scanner.Refusal"),
    "message-on-the-next-line": (TWO_LINES, "RuntimeError: the model weights are not there"),
    "group": (GROUP, "TypeError: two"),
    "c++": (CPP, "no orientation in header"),
    "itk": (ITK, "Description: ITK ERROR: ImageFileReader(0x55d0c8e3b0a0):  Could not create IO object for reading "
            "file /data/x.dcm"),
    "java": (JAVA, 'Caused by: java.lang.NumberFormatException: For input string: "x"'),
    "node": (NODE, "TypeError: x is not a volume"),
    "bash": ("run.sh: line 7: dcmdump: command not found\n", "run.sh: line 7: dcmdump: command not found"),
    "killed": ("bash: line 1: 17505 Killed                  sleep 9\n",
               "bash: line 1: 17505 Killed                  sleep 9"),
    "dcm2niix": (DCM2NIIX, DCM2NIIX.splitlines()[1]),
    "progress-and-separators": (TQDM, "geometry of slice 3 is broken"),
    "installer": (UV, "cause: Because nosuchpackage was not found in the package registry, your requirements are "
                  "unsatisfiable."),
    "unicode": ("Fehler: Größe der Schicht ≠ 512\n═══════════\n", "Fehler: Größe der Schicht ≠ 512"),
    "colours": ("\x1b[31mno pixels\x1b[0m\n\x1b[2m----\x1b[0m\n", "no pixels"),
    "control-characters": ("no\x07 pixels in \udce9\n", r"no\x07 pixels in \xe9"),
    "of-the-series": (BATCH, "1.2.3.2: geometry is not supported"),
    "handled-and-then-raised": (HANDLED, "series 1.2.3.2 is refused: mixed orientation"),
    "nothing": ("", ""),
    "only-decoration": ("====\n\n  ^^^\n", ""),
}  # fmt: skip


@pytest.mark.parametrize(("output", "line"), CASES.values(), ids=CASES)
def test_line_that_says_most_is_picked(output: str, line: str) -> None:
    assert telling_line(output.splitlines(), series=SERIES) == line


def test_line_is_picked_without_a_series_too() -> None:
    assert telling_line(BATCH.splitlines()) == "1 of 3 series could not be converted"


@pytest.mark.parametrize(
    ("code", "output", "limit", "said"),
    [
        (1, TRACEBACK, None, "ValueError: slice distances differ (exit code 1)"),
        (1, SYNTAX, None, "SyntaxError: '(' was never closed (exit code 1)"),
        (127, "run.sh: 7: dcmdump: not found\n", None, "run.sh: 7: dcmdump: not found (exit code 127)"),
        (3, "", None, "operator convert of w-1 (image convert) ended with exit code 3, without output"),
        (137, "slice 4\n", None, "operator convert of w-1 (image convert) was killed (exit code 137), most likely for "
         "using too much memory; it last said: slice 4"),
        (1, "MemoryError\n", 100, "operator convert of w-1 (image convert) ended with exit code 1 at its limit of "
         "100 MiB; it last said: MemoryError"),
    ],
    ids=["traceback", "syntax", "not-found", "silent", "killed", "memory-limit"],
)  # fmt: skip
def test_error_of_an_operator_is_told_in_one_line(code: int, output: str, limit: int | None, said: str) -> None:
    launch = Launch(
        run_id="w-1",
        workflow="w",
        operator="convert",
        image="convert",
        directory=Path("/data"),
        operator_in_dir="initial-input",
        operator_out_dir="convert",
        memory_mb=limit,
    )
    with pytest.raises(OperatorError) as caught:
        outcome_of(code, launch, deque(output.splitlines()))
    assert short_reason(str(caught.value), series=SERIES) == said


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("def f(:\n", "SyntaxError: invalid syntax"),
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("open('/nowhere/x')", "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/x'"),
        ("import sys; sys.exit('no pixels')", "no pixels"),
        ("assert 1 == 2", "AssertionError"),
        ("class Odd(Exception): pass\nraise Odd('strange')", "Odd: strange"),
    ],
    ids=["syntax", "module", "file", "exit", "assert", "own"],
)
def test_line_is_picked_of_what_this_python_prints(tmp_path: Path, script: str, line: str) -> None:
    file = tmp_path / "main.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert telling_line(done.stderr.splitlines()) == line
