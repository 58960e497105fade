"""Values that satisfy a JSON schema, drawn from a seeded generator at a bounded cost."""
