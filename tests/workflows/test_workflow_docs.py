"""What an author can write is in docs/workflows.md, and its example works."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from kaapana_assets import workflows
from kaapana_assets.workflows import ContainerOperator, OperatorContext, Parameter, PythonOperator, Workflow
from kaapana_assets.workflows.model import _RESERVED

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "workflows.md").read_text()
FIELDS = [
    (kind.__name__, field.name)
    for kind in (Workflow, ContainerOperator, PythonOperator, OperatorContext)
    for field in dataclasses.fields(kind)
]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[".".join(names) for names in FIELDS])
def test_each_field_is_documented(kind: str, field: str) -> None:
    assert f"`{field}`" in DOCS, f"{field} of {kind}"


def test_each_field_of_a_parameter_and_argument_of_put_objects_is_documented() -> None:
    names = [*(f.name for f in dataclasses.fields(Parameter)), *inspect.signature(workflows.put_objects).parameters]
    assert [name for name in names if not re.search(rf"\b{name}\b", DOCS)] == []


def test_each_public_name_and_each_reserved_one_is_documented() -> None:
    assert [name for name in (*workflows.__all__, *_RESERVED) if name not in DOCS] == []


def test_no_field_is_documented_that_there_is_not() -> None:
    written = re.findall(r"^\| `(\w+)` \| [^|]* \| ", DOCS, flags=re.M)
    known = {name for _, name in FIELDS}
    assert [name for name in written if name not in known] == []


def test_example_is_a_valid_workflow() -> None:
    code = DOCS.split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {}
    exec(compile(code, "example.py", "exec"), names)
    study_ids = names["study_ids"]
    assert isinstance(study_ids, Workflow)
    assert [operator.full_name for operator in study_ids.operators] == ["extract-study-id", "pool-jsons", "put-objects"]
