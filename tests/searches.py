"""Methods for the tests of style generators."""

from iagan_lightning import Fit, FitSettings, TestTimeModule


class FromTheMean(TestTimeModule):
    """Searches one space from its mean."""

    space = "w"

    def configure_fits(self):
        return [Fit("search", FitSettings(optimizer="lbfgs", steps=30), self.space, init="mean", result="found")]


class Plus(FromTheMean):
    space = "w+"
