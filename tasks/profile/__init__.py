"""What is measured of a base model before anything is chosen: one profiler per file."""
