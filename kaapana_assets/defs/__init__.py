"""Everything that Dagster loads: assets, jobs, sensors, partitions and resources. No other room imports Dagster."""
