"""Export checkpoints in forms that serving engines load, and inspect checkpoints."""
