"""Pure functions on numpy arrays; the shapes are in their docstrings. No I/O, no models, no torch.

PIL does what PIL does in the nodes that these take the place of: resampling, blurring, compositing.
"""
