"""How good a result is, as counts that add up. Rates are derived from the counts, and carry an interval."""
