"""Large collections of medical images, processed as Dagster assets."""

__version__ = "0.1.0"
