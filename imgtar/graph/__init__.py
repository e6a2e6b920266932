"""Descriptors in relation. Pure: nothing here reads, writes or knows a terminal."""
