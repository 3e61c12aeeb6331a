"""What a person can do with a platform, once for all faces: the command line, programs, web pages.

Arguments and results are typed values; progress is told by callbacks. Nothing here prints, asks or ends a
process, and nothing here imports Dagster, which is reached by ``graphql``. A program on the platform's machine:

    from kaapana_assets.operations import cohorts, runs
    from kaapana_assets.operations.session import Session, settings_to_change

    with Session(settings_to_change(home=Path("kaapana-home"))) as session:
        cohorts.freeze(session, "ct", "Modality:CT")
        run = runs.start(session, "dcm2nrrd", "ct")
        print(runs.follow(session, run).report)
"""
