"""evaluate: base and candidate (and control) measured in one run, on the same items."""
