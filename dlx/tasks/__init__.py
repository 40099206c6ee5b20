"""What is learned: the System contract and its kinds."""
