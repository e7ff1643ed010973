"""Support requests: making, closing and listing them, and importing the answers."""
