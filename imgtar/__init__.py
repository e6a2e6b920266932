"""imgtar carries container images to hosts that have no network.

One reader and one writer for every ``docker save`` and OCI-layout archive, a local store that is itself an OCI
image layout, and a resolver that lets a load happen whole or not at all. The verbs live in :mod:`imgtar.ops`.
"""

__version__ = "0.1.0"
