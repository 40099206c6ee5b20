"""Where metrics go: local files always, Weights & Biases where asked."""
