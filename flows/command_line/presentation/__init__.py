"""Print results on a terminal: each function prints one contract."""
