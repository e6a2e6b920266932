"""``python -m imgtar``."""

from imgtar.cli.main import main

if __name__ == "__main__":
    main()
