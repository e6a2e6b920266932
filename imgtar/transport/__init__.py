"""Every outside form: how archives and layouts are read and written. Normalised at the rim: inside there are only
descriptors, and nobody meets ``manifest.json`` again."""
