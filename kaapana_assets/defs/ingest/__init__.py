"""The assets and sensors that ingest arriving series."""
