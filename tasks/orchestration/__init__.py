"""Orchestration: run steps as nodes of the DAG, with cache keys, locks, work pools and results."""
