"""Systems that learn features by telling apart images, not classes."""
