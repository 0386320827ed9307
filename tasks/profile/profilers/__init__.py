"""The profilers, a file each."""
