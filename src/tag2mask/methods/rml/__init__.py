"""RML: representation mutual learning."""
