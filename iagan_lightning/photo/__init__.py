"""A photograph in, the same photograph out: its faces found, reconstructed, and put back in agreement with its pixels.

One concept a module: ``picture`` files, ``sight`` faces, ``level`` noise and compression, ``enlarging`` the whole,
``face`` one reconstruction, ``pasting`` it back, ``record`` what is said of it, ``restoring`` all of these in a row.
"""
