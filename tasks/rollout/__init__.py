"""The staged roll-out: champion and challenger answer a log of requests; the challenger's share of
traffic grows from stage to stage."""
