"""Runs over many images: samples -> modules -> Trainers -> files; sharing out, resuming, failures."""
