"""dlx: every classic deep-learning system, one command each."""

__version__ = "0.1.0"
