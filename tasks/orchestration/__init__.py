"""How a step becomes a node of the DAG: cache key, place, locks, work pool, results."""
