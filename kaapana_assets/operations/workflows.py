"""Which workflows there are to run."""

from __future__ import annotations

from kaapana_assets.containers.factory import open_runner
from kaapana_assets.operations.session import Session
from kaapana_assets.workflows.loader import Loaded, load_workflow_files


def load_workflows(session: Session) -> Loaded:
    """The built-in workflows and the user's, with their parameters and what is wrong with any file.

    Workflow files are run; what they print goes to the process' output.

    Raises:
        ConfigurationError: the runner cannot be opened.
    """
    return load_workflow_files(session.settings.home, open_runner(session.settings))
