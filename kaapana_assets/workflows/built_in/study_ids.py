"""The identifiers of studies: by series, pooled for the cohort, and by two operators of one image."""

from kaapana_assets.workflows import ContainerOperator, Workflow

extract = ContainerOperator(name="extract-study-id", image="extract-study-id", output_patterns=("*.json",))
pool = ContainerOperator(
    name="pool-jsons",
    image="pool-jsons",
    input_operator=extract,
    level="cohort",
    output_patterns=("*.json",),
)

extract_study_id = Workflow(
    name="extract-study-id",
    operators=(extract,),
    description="Writes the StudyInstanceUID of each series as JSON.",
)

pool_study_ids = Workflow(
    name="pool-study-ids",
    operators=(extract, pool),
    description="Extracts the StudyInstanceUID of each series and pools them to one JSON file for the cohort.",
)

extract_multiple_study_ids = Workflow(
    name="extract-multiple-study-ids",
    operators=tuple(
        ContainerOperator(
            name="extract-study-id",
            image="extract-study-id",
            parallel_id=parallel_id,
            output_patterns=("*.json",),
        )
        for parallel_id in ("one", "two")
    ),
    description="Extracts the StudyInstanceUID twice, side by side: two operators of one image.",
)
