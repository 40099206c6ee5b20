"""Executors: one file for each way to run a plan's members, the table of them, and what those with workers share."""
