"""Command-line jobs, one a file."""
