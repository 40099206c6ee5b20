"""Datasets, the views onto them, and the loaders that feed a training step."""
