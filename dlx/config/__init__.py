"""Configuration: compose, check, build. Imports no torch."""

from dlx.config.build import build, build_all, file_of, instantiate, own_block, settings
from dlx.config.compose import Config, compose
from dlx.config.errors import ConfigError, Problem, UserError

__all__ = [
    "Config",
    "ConfigError",
    "Problem",
    "UserError",
    "build",
    "build_all",
    "compose",
    "file_of",
    "instantiate",
    "own_block",
    "settings",
]
