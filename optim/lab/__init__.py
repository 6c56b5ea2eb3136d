"""The laboratory: problems, training runs, comparisons, figures, and the `minigrad` command."""
