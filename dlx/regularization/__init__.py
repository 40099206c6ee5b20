"""Regularizers, one file per method. What is only configuration is only a YAML file."""
