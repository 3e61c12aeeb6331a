"""The model that authors write, its compilation to Dagster, and the built-in workflows.

What an author of a workflow file imports is here.
"""

from kaapana_assets.workflows.model import Workflow
from kaapana_assets.workflows.objects_operator import put_objects
from kaapana_assets.workflows.operators import (
    INITIAL_INPUT,
    ContainerOperator,
    OperatorContext,
    PythonOperator,
    folder_of,
)
from kaapana_assets.workflows.parameters import Parameter

__all__ = [
    "INITIAL_INPUT",
    "ContainerOperator",
    "OperatorContext",
    "Parameter",
    "PythonOperator",
    "Workflow",
    "folder_of",
    "put_objects",
]
