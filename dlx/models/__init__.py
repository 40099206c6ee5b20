"""How it is learned: one file per system."""
