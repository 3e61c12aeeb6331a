"""Dagster's side: assets, jobs, sensors, partitions and resources. The only room that imports Dagster."""
