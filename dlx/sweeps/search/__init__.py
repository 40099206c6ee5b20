"""Searches with Optuna: the space, the study and its storage, and the points that a sampler chooses."""
