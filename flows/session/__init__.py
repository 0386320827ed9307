"""What a flow runs in: its checked recipe, servers, the run's folder, what its steps take."""
