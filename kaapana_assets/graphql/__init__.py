"""The only door to Dagster for all that is not part of its definitions: its GraphQL API."""

from kaapana_assets.graphql.client import ASSET_JOB, DagsterClient

__all__ = ["ASSET_JOB", "DagsterClient"]
