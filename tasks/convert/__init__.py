"""From a plan to a checkpoint, and plans as files."""
