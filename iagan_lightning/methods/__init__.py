"""What is optimised, in which order: methods as plans of fits over a generator's latents and weights."""
