"""Models larger than memory: layers read from disk when their turn comes."""
