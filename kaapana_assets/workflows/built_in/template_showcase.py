"""Two templates, a bash and a Python script, that print the folders and the environment they see."""

from kaapana_assets.workflows import INITIAL_INPUT, ContainerOperator, Workflow

bash_template = ContainerOperator(name="bash-template", image="bash-template")
python_template = ContainerOperator(
    name="python-template", image="python-template", input_operator=bash_template, inputs=(INITIAL_INPUT,)
)

template_showcase = Workflow(
    name="template-showcase",
    operators=(bash_template, python_template),
    description="Shows what an operator sees: the contract's environment and the folders of the run directory.",
)
