"""Models in memory: loading, conversion in place, weightless skeletons, parameter counts."""
