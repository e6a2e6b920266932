"""Words on a screen: options in, one operation, one rendering. Only here are a terminal, an environment, an exit."""
