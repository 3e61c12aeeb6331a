"""The client of Dagster's GraphQL API, through which all code outside ``defs`` reaches Dagster."""

from kaapana_assets.graphql.client import ASSET_JOB, DagsterClient

__all__ = ["ASSET_JOB", "DagsterClient"]
