"""Video backbones under one contract: `files` is what lies in their folders, `denoisers` are their networks.

Both have a table of families by name; Stable Video Diffusion's is `svd`.
"""
