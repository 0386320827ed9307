"""evaluate: measure base, candidate, champion and control on the same items."""
