"""The gate step: an evaluation and a policy -> the decision to accept or reject the candidate."""
