"""Damaged and strange inputs for every reader."""
