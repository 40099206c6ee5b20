"""Many runs: plans of frozen configurations, and the executors that run them."""
