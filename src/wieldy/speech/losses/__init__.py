"""What recognisers are trained to lower."""
