"""Configuration: compose, check, build. Imports no torch."""
