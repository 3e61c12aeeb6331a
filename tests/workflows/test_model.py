"""Mistakes in a definition are told when it is made, with the file and the operator."""

from collections.abc import Callable
from typing import Any

import pytest

from kaapana_assets.errors import ParameterError, WorkflowError
from kaapana_assets.workflows import ContainerOperator, OperatorContext, Parameter, PythonOperator, Workflow
from kaapana_assets.workflows.operators import Operator
from kaapana_assets.workflows.parameters import as_text, complete


def op(name: str = "extract", **fields: Any) -> ContainerOperator:
    return ContainerOperator(name=name, **{"image": "some-image", **fields})


def nothing(context: OperatorContext) -> None:
    del context


MISTAKES: dict[str, tuple[Callable[[], dict[str, Any]], list[str]]] = {
    "unknown-input-operator": (
        lambda: {"operators": (op("a"), op("b", input_operator="c"))},
        ["'b'", "input operator 'c' is not in the workflow", "a, b"],
    ),
    "input-operator-object-left-out": (
        lambda: {"operators": (op("b", input_operator=op("a")),)},
        ["'b'", "'a' is not in the workflow"],
    ),
    "one-output-folder-twice": (
        lambda: {"operators": (op("a", operator_out_dir="x"), op("b", operator_out_dir="x"))},
        ["'a'", "output folder 'x'", "so does b"],
    ),
    "out-dir-is-the-name-of-another": (
        lambda: {"operators": (op("a"), op("b", operator_out_dir="a"))},
        ["'a'", "so does b"],
    ),
    "one-name-twice": (lambda: {"operators": (op("a"), op("a"))}, ["'a'", "another operator has this name"]),
    "names-that-dagster-cannot-tell-apart": (
        lambda: {"operators": (op("a-b"), op("a_b"))},
        ["'a-b'", "another operator has this name"],
    ),
    "circle-by-names": (
        lambda: {"operators": (op("a", input_operator="b"), op("b", input_operator="a"))},
        ["'a'", "circle", "a, b"],
    ),
    "input-is-itself": (lambda: {"operators": (op("a", input_operator="a"),)}, ["'a'", "circle"]),
    "reads-its-own-folder": (lambda: {"operators": (op("a", operator_in_dir="a"),)}, ["'a'", "circle"]),
    "reads-a-folder-nobody-writes": (
        lambda: {"operators": (op("a"), op("b", operator_in_dir="elsewhere"))},
        ["'b'", "'elsewhere'", "no operator"],
    ),
    "series-after-cohort": (
        lambda: {"operators": (op("a", level="cohort"), op("b", input_operator="a"))},
        ["'b'", "single series", "'a'", "pooled"],
    ),
    "series-reads-pooled-folder": (
        lambda: {"operators": (op("a", level="cohort"), op("b", operator_in_dir="a"))},
        ["'b'", "single series"],
    ),
    "no-such-level": (lambda: {"operators": (op("a", level="study"),)}, ["'a'", "'study'"]),
    "path-as-name": (lambda: {"operators": (op("../a"),)}, ["'../a'", "not a valid name"]),
    "empty-name": (lambda: {"operators": (op(""),)}, ["''", "not a valid name"]),
    "name-with-space": (lambda: {"operators": (op("my operator"),)}, ["'my operator'", "not a valid name"]),
    "name-with-dot": (lambda: {"operators": (op("v1.2"),)}, ["'v1.2'", "dots"]),
    "path-as-out-dir": (lambda: {"operators": (op("a", operator_out_dir="/tmp"),)}, ["'a'", "'/tmp'"]),
    "path-as-in-dir": (lambda: {"operators": (op("a", operator_in_dir="../x"),)}, ["'a'", "'../x'"]),
    "bad-parallel-id": (lambda: {"operators": (op("a", parallel_id="x/y"),)}, ["'a-x/y'", "not a valid name"]),
    "reserved-name": (lambda: {"operators": (op("report"),)}, ["'report'", "platform uses itself"]),
    "reserved-out-dir": (
        lambda: {"operators": (op("a", operator_out_dir="initial-input"),)},
        ["'a'", "'initial-input'", "platform uses itself"],
    ),
    "reserved-batch": (lambda: {"operators": (op("a", operator_out_dir="batch"),)}, ["'a'", "'batch'"]),
    "unknown-parameter": (
        lambda: {"operators": (op("a", parameters=("speed",)),), "parameters": (Parameter("level", 1),)},
        ["'a'", "speed", "does not have"],
    ),
    "timeout-zero": (lambda: {"operators": (op("a", timeout_s=0),)}, ["'a'", "timeout_s", "0"]),
    "retries-negative": (lambda: {"operators": (op("a", retries=-1),)}, ["'a'", "retries", "-1"]),
    "memory-zero": (lambda: {"operators": (op("a", memory_mb=0),)}, ["'a'", "memory_mb"]),
    "cpu-negative": (lambda: {"operators": (op("a", cpu=-0.5),)}, ["'a'", "cpu", "-0.5"]),
    "env-var-is-no-text": (lambda: {"operators": (op("a", env_vars={"N": 3}),)}, ["'a'", "N"]),
    "command-is-a-text": (lambda: {"operators": (op("a", command="sh x"),)}, ["'a'", "command", "tuple"]),
    "pattern-leaves-the-folder": (lambda: {"operators": (op("a", output_patterns=("../*",)),)}, ["'a'", "'../*'"]),
    "pattern-is-absolute": (lambda: {"operators": (op("a", output_patterns=("/x",)),)}, ["'a'", "'/x'"]),
    "patterns-are-a-text": (lambda: {"operators": (op("a", output_patterns="*.json"),)}, ["'a'", "tuple"]),
    "no-kind-of-operator": (lambda: {"operators": (Operator(name="a"),)}, ["name='a'", "ContainerOperator"]),
    "no-operators": (lambda: {"operators": ()}, ["no operators"]),
    "bad-workflow-name": (lambda: {"name": "a/b", "operators": (op("a"),)}, ["'a/b'", "not a valid name"]),
    "workflow-name-with-dot": (lambda: {"name": "a.b", "operators": (op("a"),)}, ["'a.b'", "dots"]),
    "one-parameter-twice": (
        lambda: {"operators": (op("a"),), "parameters": (Parameter("x", 1), Parameter("x", 2))},
        ["two parameters", "'x'"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_told_with_file_workflow_and_operator(case: str) -> None:
    fields, expected = MISTAKES[case]
    with pytest.raises(WorkflowError) as caught:
        Workflow(**{"name": "my-workflow", **fields()})
    message = str(caught.value)
    assert message.startswith("test_model.py: workflow ")
    for text in expected:
        assert text in message


def test_parallel_id_is_appended_to_name_and_folder() -> None:
    one = op("extract", parallel_id="one", operator_out_dir="found")
    two = op("extract", parallel_id="two")
    workflow = Workflow(name="twice", operators=(one, two))
    assert [(o.full_name, o.out_dir) for o in workflow.operators] == [
        ("extract-one", "found-one"),
        ("extract-two", "extract-two"),
    ]


def test_operators_come_after_what_they_read_in_whatever_order_they_are_written() -> None:
    first = op("first")
    last = PythonOperator(name="last", function=nothing, level="cohort", input_operator="middle")
    middle = op("middle", input_operator=first)
    workflow = Workflow(name="chain", operators=(last, middle, first))
    assert [o.full_name for o in workflow.operators] == ["first", "middle", "last"]
    assert [workflow.in_dir(o) for o in workflow.operators] == ["initial-input", "first", "middle"]


def test_operator_may_come_after_one_and_read_the_folder_of_another() -> None:
    workflow = Workflow(name="both", operators=(op("a"), op("b"), op("c", input_operator="b", operator_in_dir="a")))
    after = workflow.predecessors(workflow.operator("c"))
    assert [o.full_name for o in after] == ["a", "b"]
    assert workflow.in_dir(workflow.operator("c")) == "a"
    assert [o.full_name for o in workflow.leaves()] == ["c"]


PARSED = [
    ("text", "x", "plain", "plain"),
    ("text-like-a-number", "x", "3", "3"),
    ("empty-text", "x", "", ""),
    ("int", 1, 5, 5),
    ("int-of-text", 1, "-7", -7),
    ("float", 0.5, 2.5, 2.5),
    ("float-of-int", 0.5, 2, 2.0),
    ("float-of-text", 0.5, "1e-3", 0.001),
    ("bool", False, True, True),
    ("bool-of-text", False, "Yes", True),
    ("bool-of-zero", True, "0", False),
]


@pytest.mark.parametrize(("default", "given", "value"), [case[1:] for case in PARSED], ids=[case[0] for case in PARSED])
def test_parameter_takes_values_and_text_of_its_type(default: Any, given: object, value: object) -> None:
    parsed = Parameter("p", default).parse(given)
    assert parsed == value
    assert type(parsed) is type(default)


REFUSED = [
    ("int-of-word", 1, "many"),
    ("int-of-float", 1, 1.5),
    ("int-of-bool", 1, True),
    ("float-of-word", 0.5, "half"),
    ("bool-of-number", True, 1),
    ("bool-of-word", True, "perhaps"),
    ("text-of-number", "x", 3),
    ("text-of-nothing", "x", None),
    ("list", "x", ["a"]),
]


@pytest.mark.parametrize(("default", "given"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_parameter_refuses_values_of_other_types(default: Any, given: object) -> None:
    with pytest.raises(ParameterError, match="'p'"):
        Parameter("p", default).parse(given)


def test_parameter_takes_only_its_choices() -> None:
    parameter = Parameter("size", "small", choices=("small", "large"))
    assert parameter.parse("large") == "large"
    with pytest.raises(ParameterError, match="one of small, large, not 'huge'"):
        parameter.parse("huge")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"name": "Size", "default": 1}, "lower-case"),
        ({"name": "a b", "default": 1}, "lower-case"),
        ({"name": "a", "default": None}, "must be a str"),
        ({"name": "a", "default": "x", "choices": ("y",)}, "not one of its choices"),
    ],
    ids=["capitals", "space", "no-type", "default-is-no-choice"],
)
def test_parameter_that_cannot_work_is_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(WorkflowError, match=told):
        Parameter(**fields)


def test_parameters_not_given_have_their_defaults_and_unknown_ones_are_named() -> None:
    parameters = (Parameter("level", 1), Parameter("keep", False))
    assert complete(parameters, {"level": "4"}) == {"level": 4, "keep": False}
    with pytest.raises(ParameterError, match="no parameter named speed; this workflow has: keep, level"):
        complete(parameters, {"speed": 1})


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (3, "3"), (0.5, "0.5"), ("x", "x")])
def test_containers_see_values_as_text(value: Any, text: str) -> None:
    assert as_text(value) == text
