"""The `measure_costs` step: what layers cost in time on the device in use."""
