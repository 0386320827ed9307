"""The register step, promotion and rollback: versions of a model in MLflow's registry."""
