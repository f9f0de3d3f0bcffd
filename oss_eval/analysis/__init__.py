"""From stored rows to numbers: metrics, statistics, checks, comparisons, recommendations."""
