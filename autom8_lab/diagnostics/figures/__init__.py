"""The figures of a benchmark: each part yields rows, and measures them in turns with a bare alternative."""
