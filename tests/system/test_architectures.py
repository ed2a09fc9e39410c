"""Every architecture that spandrel knows, as a small network with random weights: it is imported and enlarges an image,
or is refused with a clear reason. It takes half a minute on two idle cores.

The receptive field, the halo and the squares are not measured here, which takes most of the time of an import;
service/test_community.py and service/test_imported_cleaners.py test that.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.support import spandrel_on_cpu
from tests.support.architectures import CASES, Case
from tests.support.checkpoints import ABOUT, calm, saved
from upres.core import registry
from upres.core.errors import ModelError
from upres.models import community, folder, gallery, probe

spandrel_on_cpu.declare()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # spandrel causes them
IMPORTED = [one for one in CASES if isinstance(one.becomes, int)]
[IPT] = [one for one in CASES if one.name == "IPT"]
REFUSED = [one for one in CASES if isinstance(one.becomes, str) and one is not IPT]


def named(case: Case) -> str:
    return f"{case.name}-{case.about}" if case.about else case.name


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure nothing, with a golden image of 48×48 pixels. Denormal numbers of random weights would be very slow."""
    monkeypatch.setattr(probe, "receptive_radius", lambda network, alignment: None)
    monkeypatch.setattr(probe, "alignment", lambda network, multiple_of: multiple_of)
    monkeypatch.setattr(probe, "halo", lambda network, most, alignment: 8)
    with Image.open(folder.PICTURE) as picture:
        picture.crop((0, 0, 48, 48)).save(tmp_path / "golden.png")
    monkeypatch.setattr(folder, "PICTURE", tmp_path / "golden.png")
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("case", IMPORTED, ids=named)
def test_the_network_is_imported_and_enlarges_an_image(case: Case, tmp_path: Path) -> None:
    file = saved(calm(case.build()), tmp_path / "network.safetensors")
    manifest = community.convert(file, tmp_path / "made", ABOUT).manifest
    assert manifest.factors[0] == case.becomes
    assert registry.read_folder(tmp_path / "made")[0] == manifest
    [golden] = manifest.golden
    with Image.open(tmp_path / "made" / golden.enlarged.file) as enlarged:
        assert enlarged.size == (48 * manifest.networks[0].factor,) * 2


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_the_network_is_refused_with_a_reason(case: Case) -> None:
    with pytest.raises(ModelError, match=str(case.becomes)):
        community._recognised(case.build().state_dict())


def test_a_network_that_runs_alone_but_not_in_the_engine_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = saved(IPT.build().state_dict(), tmp_path / "network.pth")
    with pytest.raises(ModelError, match=str(IPT.becomes)):
        community.convert(file, tmp_path / "made", ABOUT)
    assert not (tmp_path / "made").exists()


def test_no_architecture_is_left_out_and_the_gallery_names_known_ones() -> None:
    import spandrel

    known = {one.architecture.id for one in spandrel.MAIN_REGISTRY}
    assert {one.module or one.name for one in CASES} == known
    assert {one.architecture for one in gallery.models().values()} <= known
