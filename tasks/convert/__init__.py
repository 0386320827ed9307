"""convert: write the hybrid checkpoint that a plan describes; read and write plan files."""
