"""Measurements that back the README's figures.

`python -m benchmarks` lists them; each prints JSON and says what it ran.
"""
