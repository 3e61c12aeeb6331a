"""Everything that Dagster loads: assets, jobs, sensors, partitions, resources. Nothing outside imports Dagster."""
