"""Times and peak memory of models."""
