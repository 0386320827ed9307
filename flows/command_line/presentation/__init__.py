"""How results are shown on a terminal: each function prints one contract."""
