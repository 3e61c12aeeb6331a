"""The operations of a user on a platform, shared by the command line, programs and web pages.

Arguments and results are typed values, and callbacks report progress. Nothing here prints, prompts or ends the
process. Nothing here imports Dagster, which is reached by ``graphql``. An example of a program on the platform's
machine:

    from kaapana_assets.operations import cohorts, runs
    from kaapana_assets.operations.session import Session, settings_to_change

    with Session(settings_to_change(home=Path("kaapana-home"))) as session:
        cohorts.freeze(session, "ct", "Modality:CT")
        run = runs.start(session, "dcm2nrrd", "ct")
        print(runs.follow(session, run).report)
"""
