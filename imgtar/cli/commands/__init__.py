"""One file for each command."""

COMMANDS = "load save verify inspect deps images history tag rmi prune repair inventory".split()
"""In the order in which --help lists them. Each is a module here."""
