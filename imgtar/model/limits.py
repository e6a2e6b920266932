"""How much of anything a stranger may ask us to handle. Sizes are bytes."""

from __future__ import annotations

from imgtar.frozen import frozen

__all__ = ["DEFAULT_LIMITS", "Limits"]

MIB, GIB = 1 << 20, 1 << 30


@frozen
class Limits:
    """Ceilings that hold before memory is taken or a path is built (docs/security.md gives the reasons).

    Published figures of others: containers/image caps ``manifest.json`` at 1 MiB and manifests at 4 MiB
    (image/internal/iolimits/iolimits.go), containerd caps imported JSON at 20 MiB (core/images/archive/importer.go).
    """

    document: int = 4 * MIB
    config: int = 8 * MIB
    documents: int = 256 * MIB
    documents_values: int = 4_000_000
    documents_kept: int = 96 * MIB
    json_depth: int = 64
    json_values: int = 200_000
    entries: int = 100_000
    name: int = 4_096
    name_component: int = 255
    name_depth: int = 128
    extended_header: int = 1 * MIB
    extended_headers_in_a_row: int = 8
    extended_headers: int = 112 * MIB
    layers_per_image: int = 1_000
    names_per_image: int = 1_000
    images: int = 1_000
    index_depth: int = 4
    descriptors: int = 110_000
    needs: int = 500_000
    layer_uncompressed: int = 32 * GIB
    archive_uncompressed: int = 256 * GIB
    expansion_free: int = 1 * MIB
    expansion_judged_after: int = 1 * GIB
    expansion_ratio: int = 2_000
    zstd_window: int = 1 << 27
    trailing_zeros: int = 1 * MIB


DEFAULT_LIMITS = Limits()
