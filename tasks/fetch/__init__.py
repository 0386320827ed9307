"""fetch: download the base model and the texts, and store them in normalised form."""
