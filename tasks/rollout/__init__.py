"""A challenger beside the champion on a log of requests, a growing share at a time."""
