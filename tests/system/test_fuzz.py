"""A short run of the fuzz test (`make fuzz`), which decodes damaged images."""

from tests import fuzz
from tests.support import seeds
from upres.worker.imaging import images


def test_every_seed_image_can_be_decoded() -> None:
    assert len(fuzz.seeds()) > 20
    for data in fuzz.seeds():
        assert images.decode(data, 10**6).size in ((64, 48), (48, 64), (32, 32))


def test_damaged_images_are_decoded_or_raise_only_expected_errors() -> None:
    seed = seeds.seed()
    outcomes, findings = fuzz.run(3000, seed)
    assert [reason for reason, _ in findings] == [], f"python -m tests.fuzz --seed {seed} --count 3000"
    assert outcomes["picture"] > 200
    assert outcomes["truncated_image"] > 200
