"""What a layer can become: one strategy per file."""
