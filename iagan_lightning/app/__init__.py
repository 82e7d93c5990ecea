"""The page of ``iagan app``: what it runs, how it shows it, and the folder and the line of those who use it at once.

What is run for which choice (``choices``, ``framed``, ``job``) knows nothing of the page; only ``page`` and ``serving``
import gradio, and not before they are called.
"""
