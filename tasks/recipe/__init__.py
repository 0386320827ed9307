"""The recipe: one file per block, the YAML document with its lines, and the whole."""
