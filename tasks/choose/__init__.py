"""Profile -> plan: which layer becomes what, and why."""
