"""Cohorts: frozen selections of series, and their files."""
