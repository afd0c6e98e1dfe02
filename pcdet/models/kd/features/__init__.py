"""Tapped tensors as rows that know where they stand: reading, placing and matching them."""
