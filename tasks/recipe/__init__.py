"""The recipe: `recipe.py` is the whole, `document.py` reads YAML, every other file is a block."""
