"""Programs that measure: the bench, Kubernetes' own conformance specs."""
