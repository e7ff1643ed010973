"""How much of what a simulated month loses Ledger finds: `python -m evaluation.recall`."""
