"""Regularizers, one file per method. A method that is only configuration is only a YAML file."""
