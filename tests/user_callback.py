"""A callback as a user would write it, outside the package."""

import pytorch_lightning as pl


class CountEvaluations(pl.Callback):
    """Write how many evaluations of the objective each stage had."""

    def __init__(self, path: str):
        self.path = path
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(pl_module.stage)

    def on_train_end(self, trainer, pl_module):
        with open(self.path, "a") as file:
            file.write(f"{pl_module.names[0]} {pl_module.stage} {self.seen.count(pl_module.stage)}\n")
