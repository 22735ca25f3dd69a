"""What annotators sent: kept as it came, and canonical labels derived from it."""
