"""The recipe: `recipe.py` holds the whole, `document.py` the YAML with line numbers, every other
file one block."""
