"""Kernels: each a folder with a `naive` form that reads like its equation and a `fast` one with the same signature."""
