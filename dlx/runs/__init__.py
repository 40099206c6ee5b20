"""The run folder: create, write, read, find."""
