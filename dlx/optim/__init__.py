"""What torch.optim lacks: building from settings, schedules."""
