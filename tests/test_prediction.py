"""Lightning's own Trainer.predict with a data module: the same numbers as reconstruct."""

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from iagan_lightning import CSGM, Predictor, Stage, reconstruct
from iagan_lightning.methods.trainers import quiet_trainer
from iagan_lightning.operators import BicubicDownsampling

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")  # on machines of many cores

A = BicubicDownsampling((3, 16, 16), scale=4)
STEPS = {"latent": Stage(steps=4), "joint": Stage(steps=3)}


class Measured(pl.LightningDataModule):
    def __init__(self, *tensors):
        super().__init__()
        self.tensors = tensors

    def predict_dataloader(self):
        return DataLoader(TensorDataset(*self.tensors), batch_size=2)


@pytest.fixture
def y():
    return A(torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1)


def same(predicted, expected):
    assert len(predicted) == len(expected)
    for ours, theirs in zip(predicted, expected, strict=True):
        assert ours.results.keys() == theirs.results.keys()
        assert all(torch.equal(image, theirs[name]) for name, image in ours.results.items())


@pytest.mark.parametrize("inference_mode", [True, False])
def test_predict_is_reconstruct_to_the_last_bit(tiny, y, inference_mode):
    before = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    trainer = quiet_trainer(accelerator="cpu", inference_mode=inference_mode)
    predicted = trainer.predict(Predictor(A, tiny, seed=7, **STEPS), datamodule=Measured(y, torch.zeros(3)))
    same(predicted, [reconstruct(part, A, tiny, seed=first, **STEPS) for part, first in ((y[:2], 7), (y[2:], 9))])
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.state_dict().items())
    assert not torch.equal(predicted[0].iagan, predicted[0].csgm), "the weights did adapt"


def test_seeds_follow_the_images_and_not_the_batches(tiny, y):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(y)

    method = CSGM(tiny, latent=Stage(steps=4))
    expected = [reconstruct(y[i : i + 1], A, method, seed=i) for i in range(3)]
    model, trainer = Predictor(A, method), quiet_trainer(accelerator="cpu")
    same(trainer.predict(model, DataLoader(Stream())), expected)
    same(trainer.predict(model, DataLoader(TensorDataset(y))), expected)
