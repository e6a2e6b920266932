"""The verbs: one operation each, options in, a value out. No terminal, no environment, no exit."""
