"""Each series as one NRRD volume, in the bucket dcm2nrrd."""

from kaapana_assets.workflows import ContainerOperator, Workflow, put_objects

convert = ContainerOperator(name="dcm2nrrd", image="dcm2nrrd", output_patterns=("*.nrrd",))
put_nrrd = put_objects(name="put-nrrd", bucket="dcm2nrrd", input_operator=convert, patterns=("*.nrrd",))

dcm2nrrd = Workflow(
    name="dcm2nrrd",
    operators=(convert, put_nrrd),
    description="Converts each series to an NRRD file; a series whose geometry NRRD cannot hold is refused.",
)
