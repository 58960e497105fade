"""Measurements that print; tests assert."""
