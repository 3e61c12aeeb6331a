"""The chosen DICOM files of a cohort, as one zip or as plain files, in a bucket to be downloaded from."""

from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow, put_objects

select_files = ContainerOperator(name="select-files", image="zip-files", level="cohort", parameters=("patterns", "zip"))
put_files = put_objects(
    name="put-files",
    bucket="downloads",
    input_operator=select_files,
    level="cohort",
    parameters=("bucket",),
)

download_selected_files = Workflow(
    name="download-selected-files",
    operators=(select_files, put_files),
    parameters=(
        Parameter("patterns", "*.dcm", "Which files, as comma-separated globs."),
        Parameter("zip", True, "One zip file, or the plain files."),
        Parameter("bucket", "downloads", "The bucket to put them into."),
    ),
    description="Puts the chosen DICOM files of a cohort into a bucket, as one zip or as plain files.",
)
