"""Benchmark suites, one a module: each has `main(*, peer)` that prints a table, returns figures."""
