"""Loads the workflows that can be run."""

from __future__ import annotations

from kaapana_assets.containers.factory import open_runner
from kaapana_assets.operations.session import Session
from kaapana_assets.workflows.loader import Loaded, load_workflow_files


def load_workflows(session: Session) -> Loaded:
    """Load the built-in and the user's workflows with their parameters, and the errors in workflow files.

    This executes the workflow files; their output goes to the output of this process.

    Raises:
        ConfigurationError: the runner cannot be opened.
    """
    return load_workflow_files(session.settings.home, open_runner(session.settings))
