"""The gate step: accept or reject the candidate from its evaluation, by a policy."""
