"""The fields of a manifest belong to its schema version, by which an older release says that it is too old."""

from upres.core.manifest import Manifest

MANIFEST_FIELDS = {
    "Manifest": "created description golden licence mix name networks origin schema_version version",
    "Network": "alignment architecture factor file graph halo parameters precisions quality receptive_radius sha256 "
    "sides",
    "Golden": "enlarged factor image least_psnr_db",
    "Mix": "digest model strength version",
    "Sides": "multiple_of smallest square",
    "File": "file sha256",
}
"""The fields of manifests up to SCHEMA_WITH_MIX."""


def test_a_new_field_of_a_manifest_has_a_new_schema_version() -> None:
    """Releases before it refuse unknown fields: only by the version do they say «of a newer upres» for the reason."""
    schema = Manifest.model_json_schema()
    found = {name: part["properties"] for name, part in {**schema["$defs"], "Manifest": schema}.items()}
    fields = {name: " ".join(sorted(properties)) for name, properties in found.items()}
    assert fields == MANIFEST_FIELDS, "add a schema version to core/manifest.py, then change MANIFEST_FIELDS"
    assert found["Manifest"]["schema_version"]["enum"] == [2, 3, 4]
