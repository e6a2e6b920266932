"""Fuzz one target under the guidance of coverage: ``python -m tests.campaigns.fuzz.run TARGET CORPUS [libFuzzer options]``.

Needs atheris (the extra ``fuzz``). An input that breaks a promise is left as ``CORPUS-crash-…`` and named on stderr.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris


def main() -> None:
    """Fill the corpus with the seeds and hand over to libFuzzer, which ends the process."""
    name, corpus, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["imgtar"]):
        from tests.campaigns.fuzz import targets
    folder = Path(corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(targets.SEEDS[name]()):
        (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], corpus, f"-artifact_prefix={corpus}-", *options], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
