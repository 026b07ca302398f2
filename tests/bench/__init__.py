"""Figures of the operator; nothing here asserts on a time."""
