"""One module per command of ``iagan``; ``iagan_lightning.cli`` dispatches to them."""
