"""Seals: a Merkle tree over the log, signed checkpoints of it, and proofs against them."""
