"""The export to TensorFlow's SavedModel format, written and run by a real TensorFlow, compared with torch."""

from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from upres.core.errors import ModelError
from upres.models import export
from upres.worker.engine.loading import load
from upres.worker.engine.networks import EDSR, RRDBNet, SRVGGNetCompact
from upres.worker.model import Model

PYTHON = ROOT / ".venv-tensorflow/bin/python"
pytestmark = [pytest.mark.portable, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "network",
    [EDSR(2, width=8, depth=1), SRVGGNetCompact(4, width=8, depth=2), RRDBNet(4, width=8, depth=1, growth=4)],
    ids=["edsr", "compact", "rrdb"],
)
def test_every_architecture_exports_to_a_savedmodel_with_matching_output(
    network: torch.nn.Module, tmp_path: Path
) -> None:
    assert isinstance(network, EDSR | SRVGGNetCompact | RRDBNet)
    torch.manual_seed(0)
    found = export.export_network(export.Portable(network).eval(), network.factor, "savedmodel", tmp_path / "m", PYTHON)
    assert found.most_difference <= 1e-4
    assert (tmp_path / "m" / "saved_model.pb").exists()


def test_the_bundled_model_exports_to_a_savedmodel_with_matching_output(model: Model, tmp_path: Path) -> None:
    network = model.manifest.networks[0]
    module = export.Portable(load(network, model)).eval()
    assert export.export_network(module, network.factor, "savedmodel", tmp_path / "m", PYTHON).most_decibels <= 0.001


def test_without_tensorflow_the_error_names_the_requirements_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"requirements-savedmodel\.txt"):
        export.export_network(export.Portable(EDSR(2, 8, 1)).eval(), 2, "savedmodel", tmp_path / "m", Path("python3"))
