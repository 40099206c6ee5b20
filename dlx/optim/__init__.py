"""Optimizers beyond torch.optim, building from settings, schedules."""
