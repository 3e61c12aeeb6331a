"""The model that authors write, the loader of workflow files, and the built-in workflows.

Authors of workflow files import everything that they need from here.
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
