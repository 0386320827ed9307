"""Production: containers, Kubernetes, Prefect deployments, and the whole stack on one machine."""
