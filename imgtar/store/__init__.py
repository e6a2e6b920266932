"""The local content-addressed store: an OCI image layout that other tools can read as it lies."""
