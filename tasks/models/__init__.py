"""A model in memory: loaded, converted and back, without its weights, its parameters counted."""
