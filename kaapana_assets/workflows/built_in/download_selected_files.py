"""The chosen DICOM files, as one zip or as plain files, in a bucket to be downloaded from."""

from kaapana_assets.workflows import ContainerOperator, Parameter, Workflow, put_objects

patterns = Parameter("patterns", "*.dcm", "Which files, as comma-separated globs.")

zip_files = ContainerOperator(
    name="zip-files",
    image="zip-files",
    level="cohort",
    output_patterns=("*.zip",),
    parameters=("patterns",),
)
put_zip = put_objects(name="put-zip", bucket="downloads", input_operator=zip_files, level="cohort")

download_selected_files = Workflow(
    name="download-selected-files",
    operators=(zip_files, put_zip),
    parameters=(patterns,),
    description="Puts the chosen DICOM files of a cohort as one zip file into the bucket downloads.",
)

put_files = put_objects(name="put-files", bucket="downloads", input_operator=None, parameters=("patterns",))

download_plain_files = Workflow(
    name="download-plain-files",
    operators=(put_files,),
    parameters=(patterns,),
    description="Puts the chosen DICOM files of a cohort one by one into the bucket downloads.",
)
