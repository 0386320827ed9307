"""evaluate: base and candidate (champion, control) measured in one run, on the same items."""
