"""Tar shards of images: written, indexed, and read forwards from a disk or a web server."""
