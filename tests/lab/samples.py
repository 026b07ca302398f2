"""The manifests that people start from."""

import pathlib

MANIFESTS = pathlib.Path(__file__).resolve().parents[2] / "manifests"
SAMPLES = MANIFESTS / "samples"
