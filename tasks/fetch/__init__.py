"""fetch: a base model or a text, from wherever the recipe says, into the store in normal form."""
