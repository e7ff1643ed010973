"""Ledger keeps every webhook of a laboratory system and proves which never came."""

__version__ = "0.1.0"
