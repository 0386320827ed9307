"""The training objectives, a file each."""
