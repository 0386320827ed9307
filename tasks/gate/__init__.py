"""Report and policy -> decision."""
