"""The series that arrive, as assets and sensors."""
