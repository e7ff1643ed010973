"""Archives: sealed ranges of the log as Parquet files, checked against the seal, and read back."""
