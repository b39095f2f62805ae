"""Cross-products of columns: the last place that sees rows, and additive."""
