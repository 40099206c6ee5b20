"""Toy systems of every kind, written as a person outside dlx would: what the contracts must carry."""
