"""The command line: its commands, their options, and the output of their results."""
