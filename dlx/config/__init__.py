"""Configuration: compose, check, build. Imports no torch."""

from dlx.config.build import build, build_all, build_shared, class_block, file_of, instantiate
from dlx.config.compose import Config, compose
from dlx.config.errors import ConfigError, Problem, UserError

__all__ = [
    "Config",
    "ConfigError",
    "Problem",
    "UserError",
    "build",
    "build_all",
    "build_shared",
    "class_block",
    "compose",
    "file_of",
    "instantiate",
]
