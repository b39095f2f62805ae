"""Fits as text, tables and plots."""
