"""Tasks: the System contract and its kinds."""

from dlx.tasks.gather import gather_with_grad

__all__ = ["gather_with_grad"]
