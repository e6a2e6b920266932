"""Bytes in motion: compression, the strict tar reader and the writer, measuring, workers. Knows nothing of images."""
