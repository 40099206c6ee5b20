"""Many members trained as one program, by torch.func.vmap over stacked parameters."""
