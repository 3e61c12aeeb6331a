"""Loads workflows from Python files, both the built-in and the user's.

A file that cannot be loaded does not affect the others; its problems are reported beside them.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from kaapana_assets.containers.pinned import PinnedRunner
from kaapana_assets.containers.protocol import Runner
from kaapana_assets.errors import KaapanaAssetsError, NotFound
from kaapana_assets.workflows.file_states import (
    FileState,
    last_line,
    load_file,
    makes_workflows,
    names_in_dagster,
    word_of_dagster,
)
from kaapana_assets.workflows.fingerprints import code_version
from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.operators import ContainerOperator, name_in_dagster
from kaapana_assets.workflows.plan import BUILT_IN, Plan, PlanFiles, read_plan_files
from kaapana_assets.workflows.plan_imports import use_plugins

_READINGS = 5


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """All workflow files of a platform, and the plan made of them.

    Attributes:
        files: the state of each file.
        plan: the plan of all files and images.
        versions: by workflow and operator, the code version for the parameters' defaults.
        images: content digest of each image that exists, by the reference that workflows use.
    """

    files: tuple[FileState, ...]
    plan: Plan
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)

    @property
    def workflows(self) -> dict[str, Workflow]:
        """The workflows that can be run, by name."""
        return {workflow.name: workflow for file in self.files for workflow in file.workflows}

    @property
    def problems(self) -> dict[str, str]:
        """The problems of each file that has any, by the name of the file."""
        return {file.name: "\n\n".join(file.problems) for file in self.files if file.problems}

    def named(self, name: str) -> Workflow:
        """Return the workflow of that name, written with hyphens or underscores.

        Raises:
            NotFound: it does not exist, cannot be run, or is defined in more than one file; names file and reason.
        """
        job = name_in_dagster(name)
        wrong = [
            file
            for file in self.files
            for has in file.names
            if name_in_dagster(has) == job and has not in [workflow.name for workflow in file.workflows]
        ]
        if wrong:
            reasons = "".join(f"\n{last_line(problem)} ({file.path})" for file in wrong for problem in file.problems)
            raise NotFound(f"workflow {name!r} cannot be run:{reasons}")
        for workflow in self.workflows.values():
            if workflow.job_name == job:
                return workflow
        broken = "".join(f"\n{last_line(problem)} ({file.path})" for file in self.files for problem in file.problems)
        raise NotFound(f"no workflow {name!r}; there is: {', '.join(sorted(self.workflows))}{broken}")


def load_workflow_files(home: Path, runner: Runner) -> Loaded:
    """Load the built-in workflows and those of the user's folder, with the problems of each file.

    The plan's digest always describes what was loaded: if files change during loading, all are read again.

    Args:
        home: the platform's home.
        runner: returns the content digest of each image.
    """
    for _ in range(_READINGS):
        files = read_plan_files(home)
        loaded = _load(files, runner)
        images = {image: _image(runner, image)[0] for image in loaded.plan.images}
        if read_plan_files(home).digests == files.digests and images == loaded.plan.images:
            return loaded
    # The files kept changing, so this plan must not equal the plan of any other process.
    unlike_any = replace(loaded.plan, files={**loaded.plan.files, "files that change all the time": uuid.uuid4().hex})
    return replace(loaded, plan=unlike_any)


def _load(files: PlanFiles, runner: Runner) -> Loaded:
    use_plugins(files)
    states = [_state(files, name, path) for name, path in files.paths.items() if _is_workflow_file(files, path)]
    named = {
        operator.image
        for state in states
        for workflow in state.workflows
        for operator in workflow.operators
        if isinstance(operator, ContainerOperator)
    }
    images = {image: _image(runner, image) for image in sorted(named)}
    there = {image: digest for image, (digest, _) in images.items() if digest}
    pinned = PinnedRunner(runner, there)
    versions: dict[str, Mapping[str, str]] = {}
    taken: dict[str, Workflow] = {}
    checked = tuple(_checked(state, pinned, versions, taken) for state in states)
    operators = {
        workflow.name: [(operator.full_name, operator.level) for operator in workflow.operators]
        for state in checked
        for workflow in state.workflows
    }
    plan = Plan(files.digests, {image: digest for image, (digest, _) in images.items()}, operators)
    return Loaded(files=checked, plan=plan, versions=versions, images=there)


def _is_workflow_file(files: PlanFiles, path: Path) -> bool:
    if path.suffix != ".py" or path.stem == "__init__" or path.name.startswith("."):
        return False
    return path.is_relative_to(BUILT_IN) or path.is_relative_to(files.dags)


def _state(files: PlanFiles, key: str, path: Path) -> FileState:
    folder, _, name = key.partition("/")
    shown = name if folder == "dags" else key
    source = files.sources.get(path)
    if source is None:
        return FileState(shown, path, problems=(f"{path} {files.digests[key]}",))
    if "/" not in name:
        return load_file(path, source, name=shown)
    if makes_workflows(source):
        problem = f"{name} is not loaded: workflow files stand in {files.dags} itself, not in folders below it"
        return FileState(shown, path, problems=(problem,))
    return FileState(shown, path)


def _checked(
    state: FileState, runner: Runner, versions: dict[str, Mapping[str, str]], taken: dict[str, Workflow]
) -> FileState:
    """Add the problems that show only in comparison with other files and images.

    Args:
        state: state of the file by itself.
        runner: returns the content digest of each image.
        versions: receives the code versions of each workflow that can be run.
        taken: names in Dagster that earlier files use; receives those of this file.
    """
    good: list[Workflow] = []
    problems = list(state.problems)
    for workflow in state.workflows:
        try:
            problem = _problem(workflow, taken)
            if problem is None and versions.get(workflow.name) is None:
                defaults = {parameter.name: parameter.default for parameter in workflow.parameters}
                versions[workflow.name] = {
                    each.full_name: code_version(workflow, each, runner, defaults) for each in workflow.operators
                }
        except KaapanaAssetsError as exc:
            problem = str(exc)
        if problem is not None:
            problems.append(f"workflow {workflow.name!r}: {problem}")
        else:
            taken |= dict.fromkeys(names_in_dagster(workflow), workflow)
            good.append(workflow)
    return replace(state, workflows=tuple(good), problems=tuple(problems))


def _problem(workflow: Workflow, taken: Mapping[str, Workflow]) -> str | None:
    first = taken.get(workflow.job_name)
    if first is workflow:  # the same workflow, which two files import from one plugin
        return None
    if first is not None and first.job_name == workflow.job_name:
        return f"a workflow named {workflow.name!r} is defined in {first.source} already: rename one of them"
    if same := sorted(names_in_dagster(workflow) & taken.keys()):
        return f"it and {taken[same[0]].name!r} would both have {same[0]!r} in Dagster: rename it"
    if (word := word_of_dagster(workflow)) is not None:
        return f"Dagster or Python uses the name {word!r} itself: rename it"
    return None


def _image(runner: Runner, image: str) -> tuple[str, str]:
    try:
        return runner.image_digest(image), ""
    except KaapanaAssetsError as exc:
        return "", str(exc)
