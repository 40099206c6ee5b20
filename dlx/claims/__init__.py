"""The claims of the course, each with its runs, its figure and a line that says whether it held."""
