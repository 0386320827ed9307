"""The staged roll-out: the challenger's share of a request log grows from stage to stage."""
